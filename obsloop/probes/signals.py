"""Signals for which the program has a handler on the loop: each one that arrives is counted.

Counted is what Python saw: of two that the kernel merged, which it may do with the same signal, one.
"""

from __future__ import annotations

import signal
from typing import Any

from obsloop.base.guarded import guarded

_FIRST_REALTIME = getattr(signal, "SIGRTMIN", 0)


def delivered(loop: Any, number: int) -> None:
    """The loop is told of a signal; it has a handler for it, or has just lost it."""
    handle = loop._signal_handlers.get(number)
    if handle is not None and not handle._cancelled:
        guarded(_count, loop, number)


def name_of(number: int) -> str:
    """``SIGTERM``, ``SIGRTMIN+3``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        above = number - _FIRST_REALTIME
        return f"SIGRTMIN+{above}" if _FIRST_REALTIME and above > 0 else f"SIG{number}"


def _count(loop: Any, number: int) -> None:
    loop._obsloop.metrics_of(loop).labelled.count("asyncio.signal.delivered", name_of(number))
