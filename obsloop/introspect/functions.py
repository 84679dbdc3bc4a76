"""The name of a function under all its wrappers, and where it is defined.

It never raises and runs no code of the program: it reads objects with ``attributes``. It keeps only strings.
"""

from __future__ import annotations

import functools
from types import (
    CodeType,
    FunctionType,
)
from typing import Any, NamedTuple

from obsloop.introspect.attributes import (
    class_name,
    class_of,
    clean,
    get,
    is_a,
    join,
    qualname_of,
    text,
)

DEEPEST = 1000  # wrappers around a function, coroutines that await each other


class Site(NamedTuple):
    """The name of what ran, and where it is defined."""

    name: str
    """Module and qualified name: ``app.views.report``, ``app.Client.data_received``, ``time.sleep``."""
    filename: str
    """The file that defines it; empty if it has no Python source."""
    lineno: int
    """The first line of its definition; 0 if it has no Python source."""
    task_name: str | None = None
    """The task's name if it is a task's step."""
    detail: str = ""
    """``from 10.0.0.7:5432`` for a protocol's callback, ``accepting on [::1]:80`` for a server's."""

    def fields(self) -> dict[str, Any]:
        """Return the fields of an event that come from it, without the detail."""
        return {"name": self.name, "filename": self.filename, "lineno": self.lineno, "task_name": self.task_name}


THE_LOOP = Site("(loop)", "", 0)
"""The loop itself: no callback of the program's ran."""
CANCELLED = Site("(cancelled)", "", 0)
"""A handle that was cancelled while it ran, and has dropped its callback."""


def bounded(site: Site) -> Site:
    task_name = None if site.task_name is None else clean(site.task_name)
    return site._replace(name=clean(site.name), task_name=task_name, detail=clean(site.detail))


def least(obj: Any) -> Site:
    """Return what is always known of an object: the function itself, or the class."""
    return bounded(of_function(obj) if class_of(obj) is FunctionType else Site(class_name(class_of(obj)), "", 0))


def place_of(function: Any) -> tuple[str, int]:
    """Return file and first line of a function of Python or Cython; ``("", 0)`` for others."""
    code = get(function, "__code__")
    return (code.co_filename, code.co_firstlineno) if class_of(code) is CodeType else ("", 0)


CYTHON_FUNCTIONS = ("cython_function_or_method", "fused_cython_function")
_LOOK_THROUGH = ("__wrapped__", "_partialmethod", "__partialmethod__")


def unwrap(obj: Any) -> Any:
    """Return the object that ``obj`` wraps, one layer less; None if it wraps none."""
    if is_a(obj, functools.partial):
        return get(obj, "func")
    if is_a(obj, (staticmethod, classmethod)):
        return get(obj, "__func__")
    if is_a(obj, functools.partialmethod):
        return get(obj, "func")
    if qualname_of(class_of(obj)) == "_Timed" and class_name(class_of(obj)) == "obsloop.loop.fallback._Timed":
        return get(obj, "_callback")
    for name in _LOOK_THROUGH:
        inner = get(obj, name)
        if inner is not None:
            return inner
    return None


def innermost_function(obj: Any, args: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """Return the function under all wrappers, and its arguments; the outermost one if the wrappers form a circle."""
    outermost, around = obj, args
    seen: set[int] = set()
    while len(seen) < DEEPEST and id(obj) not in seen:
        seen.add(id(obj))
        inner = unwrap(obj)
        if inner is None or not (callable(inner) or is_a(inner, (staticmethod, classmethod, functools.partialmethod))):
            return obj, args
        if is_a(obj, functools.partial):
            args = (*(get(obj, "args") or ()), *args)
        obj = inner
    return outermost, around


def of_function(function: Any) -> Site:
    qualname = text(get(function, "__qualname__")) or text(get(function, "__name__"))
    return Site(join(get(function, "__module__"), qualname), *place_of(function))
