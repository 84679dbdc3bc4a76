"""Displaced loops: other code has put its own ``_run_once`` on their class, as ``nest_asyncio.apply()`` does.

From then on obsloop times nothing of such a loop, so it reports neither that the loop runs nor that it is blocked.
Other threads ask for this when a loop seems to be blocked or is shown.
"""

from __future__ import annotations

from typing import Any

from obsloop.base.guarded import harmless
from obsloop.base.log import first_time, logger
from obsloop.hotpath import backend
from obsloop.introspect.attributes import class_of


def is_displaced(loop: Any) -> bool:
    """Return whether other code iterates ``loop``; log it once for each loop class."""
    cls: Any = class_of(loop)
    method = getattr(cls, "_run_once", None)
    if method is backend.run_once or method is None or backend.run_once is None:
        return False
    code = getattr(method, "__code__", None)
    if code is None or not {"super", "_run_once"}.isdisjoint(code.co_names):
        return False  # a subclass of the program's that calls obsloop's
    name = f"{cls.__module__}.{cls.__qualname__}"
    if first_time(f"displaced: {name}"):
        with harmless:  # a logging handler of the program's may raise
            logger.warning(
                "loops of class %s are no longer timed: their _run_once is now %s.%s. nest_asyncio.apply() replaces it;"
                " without it, all is timed again.",
                name, getattr(method, "__module__", "?"), getattr(method, "__qualname__", "?"),
            )  # fmt: skip
    return True
