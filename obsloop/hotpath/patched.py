"""Some tools put a method of their own in the place of ``asyncio.Handle._run``: aiodebug, logfire and ddtrace do.

obsloop's loop calls callbacks itself. While that method is another tool's, it calls the method for each callback, so
that the tool sees what it sees on asyncio's loop.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from obsloop.base.asyncio_private import Handle


def _asyncios(method: Any) -> bool:
    """Return whether ``method`` is asyncio's own. ddtrace leaves the function there, and changes its code."""
    code = getattr(method, "__code__", None)
    if type(method) is not FunctionType or code is None:
        return not hasattr(method, "__wrapped__")  # compiled by Cython, or a wrapper
    return (method.__module__, method.__qualname__) == ("asyncio.events", "Handle._run") and "_context" in code.co_names


_now: Any = Handle._run
STOCK: Any = _now if _asyncios(_now) else None
"""asyncio's own method; None if it was replaced before obsloop was imported."""
CODE: Any = getattr(STOCK, "__code__", None)


def is_patched() -> bool:
    """Return whether the method is another tool's at present."""
    method: Any = Handle._run
    if method is STOCK:
        return getattr(method, "__code__", None) is not CODE
    return not _asyncios(method)
