"""The name of a coroutine or a task, and the line at which it waits.

It never raises and runs no code of the program's: objects are read with ``attributes``. It keeps strings only.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import PurePath
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
)
from typing import Any

from obsloop.base.asyncio_private import C_TASK, private_tasks
from obsloop.introspect import frames
from obsloop.introspect.attributes import (
    class_name,
    class_of,
    clean,
    find,
    get,
    is_a,
    item,
    join,
    qualname_of,
    text,
    vars_of,
)
from obsloop.introspect.functions import DEEPEST, Site, bounded, innermost_function, least, of_function, unwrap

_MOST = 1024  # coroutines whose names are kept


def is_task(thing: Any) -> bool:
    """Whether it is a task of asyncio's own making, or of a subclass: one whose steps are known when they are seen."""
    return is_a(thing, TASKS)


def site_of_task(task: Any) -> Site:
    """The coroutine that ``task`` runs, and the task's name."""
    try:
        return bounded(of_task(task))
    except Exception:
        return least(task)


def coroutine_of(task: Any) -> Any:
    """The task's coroutine; None of an eager task that never had to wait, which has let go of it.

    Not by ``get_coro``: in CPython 3.12.1 that then crashes.
    """
    return get(task, "_coro")


def site_of_coroutine(coro: Any) -> Site:
    """The function that made ``coro``, by the same name while it runs and when it has finished."""
    try:
        return bounded(of_coroutine(coro))
    except Exception:
        return least(coro)


def site_of_code(code: Any, qualname: str) -> Site:
    """The coroutine function with this code and qualified name; or the class of what is no coroutine of Python's."""
    try:
        if class_of(code) is CodeType:
            return bounded(Site(*_of_code(code, qualname or code.co_qualname)))
        return bounded(Site(class_name(code), "", 0))
    except Exception:
        return least(code)


def waiting_at(coro: Any) -> tuple[str, int, str]:
    """File, line and qualified name of the innermost frame that ``coro`` waits in; ``("", 0, "")`` if there is none."""
    found = "", 0, ""
    try:
        for _ in range(DEEPEST):
            if coro is None:
                break
            coro = generator_in(coro)
            prefix = prefix_of(coro)
            place = place_in(coro)
            if place is not None:
                found = place[0].co_filename, place[1], clean(place[0].co_qualname)
            coro = get(coro, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
    except Exception:  # noqa: S110  an end of the chain that looks like nothing we know; what was found so far counts
        pass
    return found


def place_in(coro: Any) -> tuple[CodeType, int] | None:
    """Code and line that ``coro``, a coroutine or generator of Python's, is at; None where it has ended, or is C's."""
    frame_of = find(class_of(coro), f"{prefix_of(coro)}_frame")
    return frames.place_in(coro, frame_of) if class_of(frame_of) is GetSetDescriptorType else None


TASKS: tuple[type[Any], ...] = (
    asyncio.Task,
    C_TASK or asyncio.Task,
    getattr(private_tasks, "_PyTask", asyncio.Task),
)


_CARRIERS = ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable")
_PREFIXES: tuple[tuple[Any, str], ...] = ((CoroutineType, "cr"), (GeneratorType, "gi"), (AsyncGeneratorType, "ag"))
_named: dict[tuple[str, int, str], tuple[str, str, int]] = {}


def of_task(task: Any) -> Site:
    base = private_tasks._PyTask if is_a(task, private_tasks._PyTask) else TASKS[1]
    if not is_a(task, base):
        return least(task)
    coro = coroutine_of(task)
    site = least(task) if coro is None else of_coroutine(coro)
    return site._replace(task_name=text(base.get_name(task)))


def generator_in(obj: Any) -> Any:
    """The coroutine or generator that ``obj``, if it is one of the objects C puts around them, drives."""
    for _ in range(DEEPEST):
        inner = get(obj, "_GeneratorWrapper__wrapped")  # types.coroutine, of what is no generator of C's
        if inner is None and qualname_of(class_of(obj)) in _CARRIERS:  # they have no attributes
            inner = next((held for held in gc.get_referents(obj) if _is_generator(held)), None)
        if inner is None:
            break
        obj = inner
    return obj


def _is_generator(obj: Any) -> bool:
    return is_a(obj, (CoroutineType, GeneratorType, AsyncGeneratorType)) or qualname_of(class_of(obj)) in _CARRIERS


def prefix_of(coro: Any) -> str:
    for cls, prefix in _PREFIXES:
        if class_of(coro) is cls:
            return prefix
    return "gi" if find(class_of(coro), "gi_frame") is not None else "cr"  # Cython's, or nothing of the kind


def of_coroutine(coro: Any) -> Site:
    coro = generator_in(coro)
    qualname = text(get(coro, "__qualname__"))
    if not qualname or find(class_of(coro), "__qualname__") is None:
        return least(coro)
    code = get(coro, f"{prefix_of(coro)}_code")
    if class_of(code) is not CodeType or not _is_generator(coro):  # Cython's know their module
        place = (code.co_filename, code.co_firstlineno) if class_of(code) is CodeType else ("", 0)
        return Site(join(get(coro, "__module__"), qualname), *place)
    return Site(*_of_code(code, qualname))


def _of_code(code: CodeType, qualname: str) -> tuple[str, str, int]:
    # A finished coroutine has no globals left to ask for its module, so it is found by what both have: the code.
    key = code.co_filename, code.co_firstlineno, qualname
    found = _named.get(key)
    if found is None:
        if qualname == code.co_qualname:
            found = join(_module_of(code.co_filename), qualname), code.co_filename, code.co_firstlineno
        else:  # functools.wraps: the name is that of the function within, the code that of the wrapper
            function = _decorated(code, qualname)
            found = (qualname, code.co_filename, code.co_firstlineno) if function is None else of_function(function)[:3]
        if len(_named) >= _MOST:
            _named.clear()
        _named[key] = found
    return found


def _spaces() -> list[Any]:
    """What is in each module, as dictionaries."""
    return [get(module, "__dict__") for module in list(sys.modules.values())]


def _module_of(filename: str) -> str:
    for space in _spaces():
        if text(item(space, "__file__")) == filename:
            return text(item(space, "__name__"))
    if filename.startswith("<") and get(sys.modules.get("__main__"), "__file__") is None:  # typed in, or given by -c
        return "__main__"
    return PurePath(filename).stem


def _decorated(code: CodeType, qualname: str) -> Any:
    """The function within the wrapper whose code and qualified name these are; None unless there is just one."""
    found: dict[int, Any] = {}
    first, *rest = qualname.split(".")
    for space in _spaces():
        obj = item(space, first)
        for name in rest:
            obj = vars_of(obj).get(name) if is_a(obj, type) else None
        function = innermost_function(obj)[0]
        for _ in range(DEEPEST if obj is not None else 0):
            if get(obj, "__code__") is code and class_of(function) is FunctionType:
                found[id(function)] = function
                break
            obj = unwrap(obj)
            if obj is None:
                break
    return next(iter(found.values())) if len(found) == 1 else None
