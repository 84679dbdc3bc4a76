"""From a handle to a name that a person understands: ``app.Client.data_received``, and where that is defined.

It runs only when something rare happened, in the loop's thread or in another one while the callback still runs. It
never raises and runs no code of the program: it reads objects with ``introspect.attributes``. It keeps only strings, no
object.
"""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from collections.abc import Iterable
from contextvars import Context
from types import (
    BuiltinMethodType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

from obsloop.introspect.attributes import (
    class_name,
    class_of,
    find,
    get,
    is_a,
    join,
    mro_of,
    qualname_of,
    text,
)
from obsloop.introspect.coroutines import (
    TASKS,
    awaited_by,
    coroutine_of,
    generator_in,
    of_coroutine,
    of_task,
    prefix_of,
)
from obsloop.introspect.functions import (
    CANCELLED,
    CYTHON_FUNCTIONS,
    DEEPEST,
    Site,
    bounded,
    innermost_function,
    least,
    of_function,
    place_of,
)
from obsloop.introspect.own_code import OwnCode
from obsloop.introspect.protocols import BETWEEN, THROUGH, listens_on, of_protocol, peer_of, protocol_method

private_sslproto: Any = sslproto


def site_of_handle(handle: Any) -> Site:
    """Return the site of what ``handle``, of any class, runs or has run."""
    try:
        callback, args = get(handle, "_callback"), get(handle, "_args")
    except Exception:
        return CANCELLED
    return CANCELLED if callback is None else site_of_callback(callback, args)


def site_of_callback(callback: Any, args: tuple[Any, ...] = ()) -> Site:
    """Return the site of the program's function behind ``callback``, which is called with ``args``."""
    try:
        return bounded(_of_callback(callback, args if class_of(args) is tuple else ()))
    except Exception:
        return least(callback)


def own_coroutine(handle: Any, rule: OwnCode) -> Site | None:
    """Return the site of the outermost coroutine of the program's own in the task whose step ``handle`` is.

    None if there is none, or if ``handle`` is no task's step.
    """
    try:
        task = get(get(handle, "_callback"), "__self__")
        coro = coroutine_of(task) if is_a(task, TASKS) else None
        for _ in range(DEEPEST):
            if coro is None:
                return None
            coro = generator_in(coro)
            code = get(coro, f"{prefix_of(coro)}_code")
            if class_of(code) is CodeType and rule.is_own(code.co_filename):
                return bounded(of_coroutine(coro))
            coro = awaited_by(coro)
    except Exception:  # noqa: S110  an object of an unknown kind
        pass
    return None


_STEPS = ("__step", "__wakeup", "task_wakeup")


def _of_callback(callback: Any, args: tuple[Any, ...]) -> Site:
    callback, args = innermost_function(callback, args)
    cls = class_of(callback)
    if cls is MethodType:
        return _of_method(callback.__self__, callback.__func__, args)
    if cls is BuiltinMethodType:
        return _of_builtin(callback, args)
    if cls is FunctionType or qualname_of(cls) in CYTHON_FUNCTIONS:
        return _of_asyncio_closure(callback) or of_function(callback)
    return _of_object(callback)


def _of_object(callback: Any) -> Site:
    """Name a class, a callable object, or a callable of C."""
    cls = class_of(callback)
    if is_a(callback, type):
        makers = (find(callback, "__init__"), find(callback, "__new__"))
        places = [place for maker in makers if (place := place_of(innermost_function(maker)[0])) != ("", 0)]
        return Site(class_name(callback), *(places[0] if places else ("", 0)))
    owner, name = get(callback, "__self__"), text(get(callback, "__name__"))
    if qualname_of(cls) == "TaskStepMethWrapper" and is_a(owner, TASKS):
        return of_task(owner)
    defined_by = get(callback, "__objclass__")
    if name and defined_by is not None and is_a(defined_by, type):  # `list.append`
        return Site(f"{class_name(defined_by)}.{name}", "", 0)
    if name and owner is not None:  # `[].__len__`
        return Site(f"{class_name(owner if is_a(owner, type) else class_of(owner))}.{name}", "", 0)
    return Site(f"{class_name(cls)}.__call__", *place_of(innermost_function(find(cls, "__call__"))[0]))


def _of_builtin(callback: Any, args: tuple[Any, ...]) -> Site:
    owner, name = callback.__self__, callback.__name__
    if owner is None or is_a(owner, ModuleType):
        module = text(get(callback, "__module__")) or text(get(owner, "__name__"))
        return Site(join(module, name), "", 0)
    if class_of(owner) is Context and name == "run" and args:
        return _of_callback(args[0], args[1:])
    return _of_method(owner, callback, args)


def _of_method(owner: Any, method: Any, args: tuple[Any, ...]) -> Site:
    """Name a method after the class of its object, even if a base class defines it."""
    function = innermost_function(method)[0]
    name = text(get(function, "__name__"))
    if is_a(owner, TASKS) and name in _STEPS and (method is function or _is_asyncios(function)):
        return of_task(owner)
    if is_a(owner, asyncio.AbstractEventLoop):
        hidden = _behind_loop(name, args)
        if hidden is not None:
            return hidden
    detail = ""
    if is_a(owner, asyncio.BaseTransport):
        detail = peer_of(owner)
        if _is_asyncios(function):
            calls = protocol_method(owner, name, text(function.__qualname__))
            protocol = get(owner, "_protocol")
            if calls and protocol is not None:
                return of_protocol(protocol, calls, detail)
    else:
        detail = next((peer_of(arg) for arg in args[:1] if is_a(arg, asyncio.BaseTransport)), "")
    if is_a(owner, BETWEEN) and name in THROUGH:
        detail = detail or peer_of(get(owner, "_transport"))
        return of_protocol(owner, THROUGH[name], detail)
    cls = owner if is_a(owner, type) else class_of(owner)
    home = text(get(function, "__qualname__")).rpartition(".")[0]
    wraps_a_stranger = method is not function and all(qualname_of(base) != home for base in mro_of(cls))
    if wraps_a_stranger or not name:  # the wrapper is the object's method, but not the function that it calls
        return _of_callback(function, args)
    return Site(f"{class_name(cls)}.{name}", *place_of(function), detail=detail)


_PASSES_ON = {"call_soon": 0, "call_soon_threadsafe": 0, "call_later": 1, "call_at": 1}
_ACCEPTS = ("_accept_connection", "_start_serving")


_stand_ins: set[str] = set()
_compiled_stand_ins: list[Any] = []


def stands_for_asyncio(modules: Iterable[str], compiled: Iterable[Any]) -> None:
    """Treat the functions of these modules, and these compiled ones, like asyncio's: name what they call instead."""
    _stand_ins.update(modules)
    _compiled_stand_ins.extend(compiled)


def _is_asyncios(function: Any) -> bool:
    """Return whether it is asyncio's own function, or one of obsloop's that stands in for it."""
    if class_of(function) is not FunctionType:
        return any(function is method for method in _compiled_stand_ins)
    module = text(function.__module__)
    return module.startswith("asyncio.") or module in _stand_ins


def _of_asyncio_closure(function: Any) -> Site | None:
    """Name the program's function in the closure of one of asyncio's inner functions; None if there is none."""
    if not _is_asyncios(function) or not function.__closure__:
        return None
    for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True):
        if name == "coro":  # run_coroutine_threadsafe
            return of_coroutine(cell.cell_contents)
        if name == "client_connected_cb":  # start_server's protocol factory
            return _of_callback(cell.cell_contents, ())
        if name == "self" and is_a(cell.cell_contents, sslproto.SSLProtocol):  # continues or resumes reading
            return _of_method(cell.cell_contents, private_sslproto.SSLProtocol._do_read, ())
    return None


def _behind_loop(name: str, args: tuple[Any, ...]) -> Site | None:
    """Name what the loop's method ``name`` will schedule or start, or the protocol factory of a server's accepts."""
    if name in _ACCEPTS and len(args) > 1:
        return _of_callback(args[0], ())._replace(detail=f"accepting on {listens_on(args[1])}".removesuffix(" on "))
    at = _PASSES_ON.get(name, len(args))
    if at < len(args):
        return _of_callback(args[at], args[at + 1 :])
    if name == "create_task" and args:
        return of_coroutine(args[0])
    return None
