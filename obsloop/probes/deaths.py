"""When subprocesses end: a thread for each that the kernel tells at that moment, whatever their loop is doing.

A loop hears of a child's end when it gets to it; how long that took can only be known by somebody who was not busy.
Each thread waits for one child without reaping it (``waitid`` with ``WNOWAIT``) and wants nothing but a look at the
clock, so it costs no descriptor and holds no lock. Where the program holds the interpreter's lock, the look is late.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from obsloop import _clock
from obsloop._threads import start_without_signals

MAX_WAITING = 64
"""Of more children at once nobody waits for the end."""

_waiting: set[Any] = set()
dropped = {"child_end": 0}
"""Of how many children nobody waited for the end."""


def wait_for(child: Any, pid: int) -> None:
    """Note in ``child.ended_ns`` when the process ``pid``, which is not reaped yet, ends; ``child.awaited`` says so."""
    if not hasattr(os, "waitid"):
        return
    if len(_waiting) >= MAX_WAITING:
        dropped["child_end"] += 1
        return
    thread = threading.Thread(target=_wait, args=(child, pid), name="obsloop-child", daemon=True)
    _waiting.add(child)
    child.awaited = True
    try:
        start_without_signals(thread)
    except RuntimeError:  # no more threads
        _waiting.discard(child)
        child.awaited = False
        dropped["child_end"] += 1


def _wait(child: Any, pid: int) -> None:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except OSError:  # the loop was faster, and has reaped it
        pass
    finally:
        child.ended_ns = _clock.monotonic_ns()
        _waiting.discard(child)


def forked() -> None:
    """In a forked child: the threads are not there, and the parent's children are not its own."""
    _waiting.clear()
    dropped["child_end"] = 0
