"""Let a thread of the service wait in the middle of its work.

A fork waits until the service's threads are idle, so that the child inherits no lock that one of them holds. A thread
that only sleeps holds none, and a fork need not wait for it. It also looks whether its client is still there.
"""

import threading
import time
from typing import Protocol

_thread = threading.local()


class Worker(Protocol):
    """What a thread that works knows of itself: `Answerer` in answers.py."""

    working: threading.Lock
    gone: bool


class GoneError(Exception):
    """The client for which this thread works has hung up."""


def working(worker: Worker) -> None:
    """Note for whom this thread works: it holds the lock ``working`` meanwhile."""
    _thread.worker = worker


def rest(seconds: float) -> None:
    """Sleep without the lock of this thread's work. Raise ``GoneError`` if its client has hung up meanwhile."""
    worker: Worker | None = getattr(_thread, "worker", None)
    if worker is None:
        time.sleep(seconds)
        return
    worker.working.release()
    try:
        time.sleep(seconds)
    finally:
        worker.working.acquire()
    if worker.gone:
        raise GoneError
