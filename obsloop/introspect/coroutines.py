"""The name of a coroutine or a task, and the line where it waits.

It never raises and runs no code of the program: it reads objects with ``attributes``. It keeps only strings.
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

_MOST = 1024  # names of so many coroutines are kept


def is_task(thing: Any) -> bool:
    """Return whether it is an asyncio task or one of a subclass, whose steps obsloop recognizes."""
    return is_a(thing, TASKS)


def site_of_task(task: Any) -> Site:
    """Return the site of the coroutine that ``task`` runs, with the task's name."""
    try:
        return bounded(of_task(task))
    except Exception:
        return least(task)


def coroutine_of(task: Any) -> Any:
    """Return the task's coroutine; None for an eager task that ended without waiting, which has dropped it.

    It does not call ``get_coro``, which crashes for such a task in CPython 3.12.1.
    """
    return get(task, "_coro")


def site_of_coroutine(coro: Any) -> Site:
    """Return the site of the function that made ``coro``. It is the same while ``coro`` runs and after its end."""
    try:
        return bounded(of_coroutine(coro))
    except Exception:
        return least(coro)


def site_of_code(code: Any, qualname: str) -> Site:
    """Return the site of the coroutine function with this code and qualified name.

    For an object that is no coroutine of Python, ``code`` is its class.
    """
    try:
        if class_of(code) is CodeType:
            return bounded(Site(*_of_code(code, qualname or code.co_qualname)))
        return bounded(Site(class_name(code), "", 0))
    except Exception:
        return least(code)


def waiting_at(coro: Any) -> tuple[str, int, str]:
    """Return file, line and qualified name of the innermost frame in which ``coro`` waits, or ``("", 0, "")``."""
    return next(reversed(waiting_places(coro)), ("", 0, ""))


def waiting_places(coro: Any) -> list[tuple[str, int, str]]:
    """Return file, line and qualified name of each frame in which ``coro`` waits, outermost first."""
    found: list[tuple[str, int, str]] = []
    try:
        for _ in range(DEEPEST):
            if coro is None:
                break
            coro = generator_in(coro)
            place = place_in(coro)
            if place is not None:
                found.append((place[0].co_filename, place[1], clean(place[0].co_qualname)))
            coro = awaited_by(coro)
    except Exception:  # noqa: S110  the chain ends in an object of an unknown kind: return the frames found so far
        pass
    return found


def place_in(coro: Any) -> tuple[CodeType, int] | None:
    """Return code and line of ``coro``, a coroutine or generator of Python. None if it has ended, or is C's."""
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
    """Return the coroutine or generator under ``obj``, if C has wrapped it in other objects."""
    for _ in range(DEEPEST):
        inner = get(obj, "_GeneratorWrapper__wrapped")  # by types.coroutine, around an object that is no C generator
        if inner is None and qualname_of(class_of(obj)) in _CARRIERS:  # these have no attributes
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
    return "gi" if find(class_of(coro), "gi_frame") is not None else "cr"  # Cython's, or no coroutine at all


def awaited_by(coro: Any) -> Any:
    """Return what this coroutine or generator awaits or iterates; None if it does not wait."""
    prefix = prefix_of(coro)
    return get(coro, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")


def of_coroutine(coro: Any) -> Site:
    coro = generator_in(coro)
    qualname = text(get(coro, "__qualname__"))
    if not qualname or find(class_of(coro), "__qualname__") is None:
        return least(coro)
    code = get(coro, f"{prefix_of(coro)}_code")
    if class_of(code) is not CodeType or not _is_generator(coro):  # Cython's coroutines have `__module__`
        place = (code.co_filename, code.co_firstlineno) if class_of(code) is CodeType else ("", 0)
        return Site(join(get(coro, "__module__"), qualname), *place)
    return Site(*_of_code(code, qualname))


def _of_code(code: CodeType, qualname: str) -> tuple[str, str, int]:
    # A finished coroutine has no globals from which to read its module. So the key is its code, which it always has.
    key = code.co_filename, code.co_firstlineno, qualname
    found = _named.get(key)
    if found is None:
        if qualname == code.co_qualname:
            found = join(_module_of(code.co_filename), qualname), code.co_filename, code.co_firstlineno
        else:  # functools.wraps: the name is that of the wrapped function, the code that of the wrapper
            function = _decorated(code, qualname)
            found = (qualname, code.co_filename, code.co_firstlineno) if function is None else of_function(function)[:3]
        if len(_named) >= _MOST:
            _named.clear()
        _named[key] = found
    return found


def _spaces() -> list[Any]:
    """Return the dictionaries of all modules."""
    return [get(module, "__dict__") for module in list(sys.modules.values())]


def _module_of(filename: str) -> str:
    for space in _spaces():
        if text(item(space, "__file__")) == filename:
            return text(item(space, "__name__"))
    if filename.startswith("<") and get(sys.modules.get("__main__"), "__file__") is None:  # typed in, or given by -c
        return "__main__"
    return PurePath(filename).stem


def _decorated(code: CodeType, qualname: str) -> Any:
    """Return the function under the wrapper with this code and qualified name; None unless there is exactly one."""
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
