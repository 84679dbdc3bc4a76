"""Which line made each of asyncio's locks, events and queues: for programs that ask for it with ``track_locks``.

asyncio keeps no such line. So this replaces ``__init__`` of asyncio's classes, for the whole process, with one that
notes its caller in an attribute of the new object. Without the setting, asyncio's classes stay as they are.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Any

from obsloop.introspect import frames
from obsloop.tasks import asyncio_waits

_CLASSES: tuple[type[Any], ...] = (
    asyncio.Lock,
    asyncio.Semaphore,
    asyncio.Condition,
    asyncio.Event,
    asyncio.Barrier,
    asyncio.Queue,
)
_originals: dict[type[Any], Any] = {}


def begin() -> None:
    """Note the line that makes each lock, event and queue from now on. Again it has no effect."""
    for cls in _CLASSES:
        if cls not in _originals:
            _originals[cls] = cls.__init__
            cls.__init__ = _noting(cls.__init__)


def end() -> None:
    """Give asyncio's classes their own ``__init__`` again, unless other code has replaced it since."""
    while _originals:
        cls, original = _originals.popitem()
        if getattr(cls.__init__, "__wrapped__", None) is original:
            cls.__init__ = original


def _noting(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        setattr(self, asyncio_waits.MADE_AT, _place(sys._getframe(1)))

    return __init__


def _place(frame: Any) -> tuple[str, int, str]:
    """Return the innermost place that is not in asyncio, in this file or in a subclass's ``__init__``."""
    last = frame
    for last, code, module in frames.callers(frame):  # noqa: B007 - used below
        if not module.startswith("asyncio.") and module != __name__ and code.co_name != "__init__":
            break
    code = last.f_code
    return code.co_filename, last.f_lineno or 0, code.co_qualname
