"""Which handles are the core's own, and their kind and ready time. Imports nothing of asyncio's private parts."""

from __future__ import annotations

from typing import Any

own_handles: set[type[Any]] = set()
"""The classes of the core's handles. Another class may have attributes of the same names that mean something else."""


def marks(handle: Any) -> tuple[int, int] | None:
    """Return kind and ready time (monotonic nanoseconds) of one of the core's own handles; None for any other class."""
    if type(handle) not in own_handles:
        return None
    try:
        return handle._kind, handle._ready_ns
    except AttributeError:  # the program made it, and does not know that they have to be set
        return None
