"""Let a fork go ahead while a thread of the service waits in the middle of its work.

A fork waits until the service's threads are idle, so that the child inherits no lock that one of them holds. A thread
that only sleeps holds none.
"""

import threading
import time

_working = threading.local()


def working(lock: threading.Lock) -> None:
    """Note that this thread holds ``lock`` while it works."""
    _working.lock = lock


def rest(seconds: float) -> None:
    """Sleep without the lock of this thread's work."""
    lock: threading.Lock | None = getattr(_working, "lock", None)
    if lock is not None:
        lock.release()
    try:
        time.sleep(seconds)
    finally:
        if lock is not None:
            lock.acquire()
