"""Serve HTTP from a thread of the process: /metrics, /healthz, /slow and /tasks, even while the loop is blocked.

It uses the standard library only. None of its modules is loaded before an observed loop with an address is made.
"""

import os
import threading
from typing import Any

from obsloop.base.address import parse_address
from obsloop.base.stderr import say_once

__all__ = ["ensure", "parse_address"]

_START_SECONDS = 10.0
"""How long a thread waits for another one that starts the service."""
_FORK_SECONDS = 1.0
"""How long a fork waits for that. Not for ever: the thread may need a module that the forking thread is importing."""

# Re-entrant: a garbage collection or a signal handler may make a loop while this thread starts the service.
_lock = threading.RLock()
_starting = False
_answers: dict[str, str | None] = {}
"""What each address was answered. It is asked for at each new loop, so this needs no lock: a thread that forks holds
the lock, and may wait for a thread that makes a loop, as gunicorn's master does."""
_held: dict[int, Any] = {}  # by the thread that forks


def ensure(
    address: str, *, unhealthy_after: float, allowed_hosts: str | None = None, socket_mode: int = 0o600
) -> str | None:
    """Serve this process on `address`. Return the first URL that is really served, or None if that failed.

    `address` is as in `parse_addresses`, the others as in `obsloop.Settings`. Never raises. A process has one service:
    the first address that could be served stays, and further calls change nothing. `unhealthy_after` (seconds) is how
    long a callback may last before /healthz answers 503; that of the first call counts. Also return None if the answer
    is not known yet: to code that runs within the start of the service, and after 10 seconds in which another thread
    has not finished that start.
    """
    global _starting  # noqa: PLW0603 - one service, one start
    if address in _answers:
        return _answers[address]
    lock = _lock
    if not lock.acquire(timeout=_START_SECONDS):
        return None
    try:
        if _starting:
            return None
        _starting = True
        try:
            from obsloop.service import lifecycle  # noqa: PLC0415  (a program without a service does not pay for it)

            url = lifecycle.ensure(
                address, unhealthy_after=unhealthy_after, allowed_hosts=allowed_hosts, socket_mode=socket_mode
            )
            _answers[address] = url
            return url
        except Exception as error:  # most likely no file descriptor is left to read the module with
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
    """Let another thread finish a start of the service.

    A child inherits the locks of modules that are being imported at that moment, and would wait for them for ever.
    """
    if _lock.acquire(timeout=_FORK_SECONDS):
        _held[threading.get_ident()] = _lock


def _after_fork_in_parent() -> None:
    lock = _held.pop(threading.get_ident(), None)
    if lock is not None:
        lock.release()


def _after_fork_in_child() -> None:
    global _lock, _starting  # a thread that is gone may hold the old lock
    _lock, _starting = threading.RLock(), False
    _held.clear()
    _answers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
