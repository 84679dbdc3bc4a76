"""Signals for which the program has a handler on the loop: each signal that arrives is counted.

obsloop counts what Python saw. The kernel may merge two of the same signal; these count as one.
"""

from __future__ import annotations

import signal
from typing import Any

from obsloop.base.guarded import guarded

_FIRST_REALTIME = getattr(signal, "SIGRTMIN", 0)


def delivered(loop: Any, number: int) -> None:
    """Count a signal that the loop got, unless the loop has just lost its handler."""
    handle = loop._signal_handlers.get(number)
    if handle is not None and not handle._cancelled:
        guarded(_count, loop, number)


def name_of(number: int) -> str:
    """Return a name such as ``SIGTERM`` or ``SIGRTMIN+3``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        above = number - _FIRST_REALTIME
        return f"SIGRTMIN+{above}" if _FIRST_REALTIME and above > 0 else f"SIG{number}"


def _count(loop: Any, number: int) -> None:
    loop._obsloop.metrics_of(loop).labelled.count("asyncio.signal.delivered", name_of(number))
