"""The HTTP service of a process: it answers /metrics, /healthz, /slow and /tasks while the loop is blocked.

Standard library only, and nothing of it is loaded before an observed loop with an address is made:

    address.py    text to addresses and the paths that are served there
    lifecycle.py  the one service of this process: start, refuse, fork
    listeners.py  listening sockets: TCP, Unix
    server.py     the service's thread: accept, read, write, within limits of time and size; it answers /healthz
    answers.py    the two threads that answer all other paths
    access.py     which requests are refused: other host names on loopback, other sites' pages
    messages.py   HTTP itself: bytes to Request, Response to bytes
    routes.py     what is served: one table from path to handler
    slow.py       /slow: the last slow callbacks, slow iterations and blocks
    tasks.py      /tasks: the live tasks, and where they wait
    pages.py      JSON for programs, plain pages for people
    say.py        lines on stderr
"""

import os
import threading
from typing import Any

from obsloop.base.address import parse_address
from obsloop.base.stderr import say_once

__all__ = ["ensure", "parse_address"]

_START_SECONDS = 10.0
"""So long a thread waits for another one that starts the service."""
_FORK_SECONDS = 1.0
"""So long a fork waits for it. Not for ever: that thread may need a module that the forking thread is importing."""

# Re-entrant: a garbage collection or a signal handler may make a loop while this thread starts the service.
_lock = threading.RLock()
_starting = False
_held: dict[int, Any] = {}  # by the thread that forks


def ensure(
    address: str, *, unhealthy_after: float, allowed_hosts: str | None = None, socket_mode: int = 0o600
) -> str | None:
    """Serve this process on `address`; return the first URL that is really served, or None where that failed.

    `address` is as in `parse_addresses`, the others as in `obsloop.Settings`. Never raises. Idempotent: there is
    one service in a process, and the first address that could be served wins. `unhealthy_after` (seconds) is how
    long a callback may last before /healthz answers 503; the first call's counts. Also None where the answer is not
    known yet: to code that runs within the start of the service, and after 10 seconds in which another thread has not
    finished that start.
    """
    global _starting  # noqa: PLW0603 - one service, one start
    lock = _lock
    if not lock.acquire(timeout=_START_SECONDS):
        return None
    try:
        if _starting:
            return None
        _starting = True
        try:
            from obsloop.service import lifecycle  # noqa: PLC0415  (a program that is not served does not pay for it)

            return lifecycle.ensure(
                address, unhealthy_after=unhealthy_after, allowed_hosts=allowed_hosts, socket_mode=socket_mode
            )
        except Exception as error:  # out of file descriptors, most likely, so that not even the module can be read
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            say_once(
                "service-start", f"cannot serve on {address}: {reason}. The program runs on, observed but not served."
            )
            return None
        finally:
            _starting = False
    finally:
        lock.release()


def _before_fork() -> None:
    """Let a start that goes on in another thread finish.

    A child inherits the locks of the modules that are being imported at that moment, and would wait for them for ever.
    """
    if _lock.acquire(timeout=_FORK_SECONDS):
        _held[threading.get_ident()] = _lock


def _after_fork_in_parent() -> None:
    lock = _held.pop(threading.get_ident(), None)
    if lock is not None:
        lock.release()


def _after_fork_in_child() -> None:
    global _lock, _starting  # the old one may be held by a thread that is gone
    _lock, _starting = threading.RLock(), False
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
