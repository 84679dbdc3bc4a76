"""From a handle to a name that a person understands: ``app.Client.data_received``, and where that is defined.

Asked only when something rare happened, from the loop's thread or from another one while the callback still runs. It
never raises and runs no code of the program's: objects are read with ``_peek``. It keeps strings only, no object.
"""

from __future__ import annotations

import _socket
import asyncio
import functools
import gc
import sys
from asyncio import base_subprocess, sslproto
from contextvars import Context
from pathlib import PurePath
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple

from obsloop.base.asyncio_private import C_TASK, private_selector_events, private_tasks
from obsloop.hotpath import backend
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
    mro_of,
    qualname_of,
    text,
    vars_of,
)

private_sslproto: Any = sslproto

_DEEPEST = 1000  # wrappers around a function, coroutines that await each other
_MOST = 1024  # coroutines whose names are kept


class Site(NamedTuple):
    """What ran, and where it is defined."""

    name: str
    """Module and qualified name: ``app.views.report``, ``app.Client.data_received``, ``time.sleep``."""
    filename: str
    """Where it is defined; empty where it has no Python source."""
    lineno: int
    """The first line of its definition; 0 where it has no Python source."""
    task_name: str | None = None
    """The task's name where it is a task's step."""
    detail: str = ""
    """``from 10.0.0.7:5432`` for a protocol's callback, ``accepting on [::1]:80`` for a server's."""

    def fields(self) -> dict[str, Any]:
        """What an event has of it, but for the detail."""
        return {"name": self.name, "filename": self.filename, "lineno": self.lineno, "task_name": self.task_name}


CANCELLED = Site("(cancelled)", "", 0)
"""A handle that cancelled itself while it ran, and let go of its callback."""


def site_of_handle(handle: Any) -> Site:
    """What ``handle``, of any class, runs or has run."""
    try:
        callback, args = get(handle, "_callback"), get(handle, "_args")
    except Exception:
        return CANCELLED
    return CANCELLED if callback is None else site_of_callback(callback, args)


def site_of_callback(callback: Any, args: tuple[Any, ...] = ()) -> Site:
    """The program's function behind ``callback``, which is called with ``args``."""
    try:
        return _bounded(_of_callback(callback, args if class_of(args) is tuple else ()))
    except Exception:
        return _least(callback)


def site_of_task(task: Any) -> Site:
    """The coroutine that ``task`` runs, and the task's name."""
    try:
        return _bounded(_of_task(task))
    except Exception:
        return _least(task)


def coroutine_of(task: Any) -> Any:
    """The task's coroutine; None of an eager task that never had to wait, which has let go of it.

    Not by ``get_coro``: in CPython 3.12.1 that then crashes.
    """
    return get(task, "_coro")


def site_of_coroutine(coro: Any) -> Site:
    """The function that made ``coro``, by the same name while it runs and when it has finished."""
    try:
        return _bounded(_of_coroutine(coro))
    except Exception:
        return _least(coro)


def site_of_code(code: Any, qualname: str) -> Site:
    """The coroutine function with this code and qualified name; or the class of what is no coroutine of Python's."""
    try:
        if class_of(code) is CodeType:
            return _bounded(Site(*_of_code(code, qualname or code.co_qualname)))
        return _bounded(Site(class_name(code), "", 0))
    except Exception:
        return _least(code)


def waiting_at(coro: Any) -> tuple[str, int, str]:
    """File, line and qualified name of the innermost frame that ``coro`` waits in; ``("", 0, "")`` if there is none."""
    found = "", 0, ""
    try:
        for _ in range(_DEEPEST):
            if coro is None:
                break
            coro = _generator_in(coro)
            prefix = _prefix(coro)
            place = place_in(coro)
            if place is not None:
                found = place[0].co_filename, place[1], clean(place[0].co_qualname)
            coro = get(coro, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
    except Exception:  # noqa: S110  an end of the chain that looks like nothing we know; what was found so far counts
        pass
    return found


def place_in(coro: Any) -> tuple[CodeType, int] | None:
    """Code and line that ``coro``, a coroutine or generator of Python's, is at; None where it has ended, or is C's."""
    frame_of = find(class_of(coro), f"{_prefix(coro)}_frame")
    return frames.place_in(coro, frame_of) if class_of(frame_of) is GetSetDescriptorType else None


def _bounded(site: Site) -> Site:
    task_name = None if site.task_name is None else clean(site.task_name)
    return site._replace(name=clean(site.name), task_name=task_name, detail=clean(site.detail))


def _least(obj: Any) -> Site:
    """The least that can be said of an object."""
    return _bounded(_of_function(obj) if class_of(obj) is FunctionType else Site(class_name(class_of(obj)), "", 0))


def _place(function: Any) -> tuple[str, int]:
    """File and first line of a function, Python or Cython."""
    code = get(function, "__code__")
    return (code.co_filename, code.co_firstlineno) if class_of(code) is CodeType else ("", 0)


# ---- callables -------------------------------------------------------------------------------------------------------

_CYTHON_FUNCTIONS = ("cython_function_or_method", "fused_cython_function")
_LOOK_THROUGH = ("__wrapped__", "_partialmethod", "__partialmethod__")
_TASKS: tuple[type[Any], ...] = (
    asyncio.Task,
    C_TASK or asyncio.Task,
    getattr(private_tasks, "_PyTask", asyncio.Task),
)
_STEPS = ("__step", "__wakeup", "task_wakeup")


def _inner(obj: Any) -> Any:
    """What ``obj`` stands around: one layer less, or None."""
    if is_a(obj, functools.partial):
        return get(obj, "func")
    if is_a(obj, (staticmethod, classmethod)):
        return get(obj, "__func__")
    if is_a(obj, functools.partialmethod):
        return get(obj, "func")
    if qualname_of(class_of(obj)) == "_Timed" and class_name(class_of(obj)) == "obsloop._fallback._Timed":
        return get(obj, "_callback")
    for name in _LOOK_THROUGH:
        inner = get(obj, name)
        if inner is not None:
            return inner
    return None


def _innermost(obj: Any, args: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """The function in the middle of all wrappers, and what it is called with. In a circle there is no middle."""
    outermost, around = obj, args
    seen: set[int] = set()
    while len(seen) < _DEEPEST and id(obj) not in seen:
        seen.add(id(obj))
        inner = _inner(obj)
        if inner is None or not (callable(inner) or is_a(inner, (staticmethod, classmethod, functools.partialmethod))):
            return obj, args
        if is_a(obj, functools.partial):
            args = (*(get(obj, "args") or ()), *args)
        obj = inner
    return outermost, around


def _of_callback(callback: Any, args: tuple[Any, ...]) -> Site:
    callback, args = _innermost(callback, args)
    cls = class_of(callback)
    if cls is MethodType:
        return _of_method(callback.__self__, callback.__func__, args)
    if cls is BuiltinMethodType:
        return _of_builtin(callback, args)
    if cls is FunctionType or qualname_of(cls) in _CYTHON_FUNCTIONS:
        return _of_asyncio_closure(callback) or _of_function(callback)
    return _of_object(callback)


def _of_object(callback: Any) -> Site:
    """A class, an object that can be called, or one of C's callables."""
    cls = class_of(callback)
    if is_a(callback, type):
        makers = (find(callback, "__init__"), find(callback, "__new__"))
        places = [place for maker in makers if (place := _place(_innermost(maker)[0])) != ("", 0)]
        return Site(class_name(callback), *(places[0] if places else ("", 0)))
    owner, name = get(callback, "__self__"), text(get(callback, "__name__"))
    if qualname_of(cls) == "TaskStepMethWrapper" and is_a(owner, _TASKS):
        return _of_task(owner)
    defined_by = get(callback, "__objclass__")
    if name and defined_by is not None and is_a(defined_by, type):  # `list.append`
        return Site(f"{class_name(defined_by)}.{name}", "", 0)
    if name and owner is not None:  # `[].__len__`
        return Site(f"{class_name(owner if is_a(owner, type) else class_of(owner))}.{name}", "", 0)
    return Site(f"{class_name(cls)}.__call__", *_place(_innermost(find(cls, "__call__"))[0]))


def _of_function(function: Any) -> Site:
    qualname = text(get(function, "__qualname__")) or text(get(function, "__name__"))
    return Site(join(get(function, "__module__"), qualname), *_place(function))


def _of_builtin(callback: Any, args: tuple[Any, ...]) -> Site:
    owner, name = callback.__self__, callback.__name__
    if owner is None or is_a(owner, ModuleType):
        module = text(get(callback, "__module__")) or text(get(owner, "__name__"))
        return Site(join(module, name), "", 0)
    if class_of(owner) is Context and name == "run" and args:
        return _of_callback(args[0], args[1:])
    return _of_method(owner, callback, args)


def _of_method(owner: Any, method: Any, args: tuple[Any, ...]) -> Site:
    """A method is named after the class of its object, which may have inherited it, not after where it is defined."""
    function = _innermost(method)[0]
    name = text(get(function, "__name__"))
    if is_a(owner, _TASKS) and name in _STEPS and (method is function or _is_asyncios(function)):
        return _of_task(owner)
    if is_a(owner, asyncio.AbstractEventLoop):
        hidden = _behind_loop(name, args)
        if hidden is not None:
            return hidden
    detail = ""
    if is_a(owner, asyncio.BaseTransport):
        detail = _peer(owner)
        if _is_asyncios(function):
            calls = _protocol_method(owner, name, text(function.__qualname__))
            protocol = get(owner, "_protocol")
            if calls and protocol is not None:
                return _of_protocol(protocol, calls, detail)
    else:
        detail = next((_peer(arg) for arg in args[:1] if is_a(arg, asyncio.BaseTransport)), "")
    if is_a(owner, _BETWEEN) and name in _THROUGH:
        detail = detail or _peer(get(owner, "_transport"))
        return _of_protocol(owner, _THROUGH[name], detail)
    cls = owner if is_a(owner, type) else class_of(owner)
    home = text(get(function, "__qualname__")).rpartition(".")[0]
    wraps_a_stranger = method is not function and all(qualname_of(base) != home for base in mro_of(cls))
    if wraps_a_stranger or not name:  # the wrapper is the object's method, what it calls is not
        return _of_callback(function, args)
    return Site(f"{class_name(cls)}.{name}", *_place(function), detail=detail)


# ---- what asyncio puts around the program's callables ----------------------------------------------------------------

_BETWEEN: tuple[type[Any], ...] = (sslproto.SSLProtocol, base_subprocess.WriteSubprocessPipeProto)
"""Asyncio's own protocols, which pass on to the program's."""

_THROUGH = {
    "connection_made": "connection_made",
    "connection_lost": "connection_lost",
    "data_received": "data_received",
    "buffer_updated": "data_received",
    "eof_received": "eof_received",
    "pause_writing": "pause_writing",
    "resume_writing": "resume_writing",
    "_do_read": "data_received",
}
_READS = ("_read_ready", "_read_ready__data_received", "_read_ready__get_buffer")
_CALLS = {
    "_write_ready": "resume_writing",
    "_write_send": "resume_writing",  # the same, by what the socket can do
    "_write_sendmsg": "resume_writing",
    "_sendto_ready": "resume_writing",
    "_call_connection_lost": "connection_lost",
    "_process_exited": "process_exited",
}
"""What each method of a transport calls of its protocol; what reads depends on the kind of both."""

_PASSES_ON = {"call_soon": 0, "call_soon_threadsafe": 0, "call_later": 1, "call_at": 1}
_ACCEPTS = ("_accept_connection", "_start_serving")


_OURS = ("obsloop.probes.network.transports", "obsloop.probes.network.tls", "obsloop.hotpath.pure.socket_io")


def _is_asyncios(function: Any) -> bool:
    """Whether it is asyncio's own, or the method of one of our transports that stands for it."""
    if class_of(function) is not FunctionType:
        return any(function is method for method in backend.TRANSPORT_METHODS.values())  # compiled
    module = text(function.__module__)
    return module.startswith("asyncio.") or module in _OURS


def _of_asyncio_closure(function: Any) -> Site | None:
    """Of asyncio's inner functions some have the program's in a cell of their closure."""
    if not _is_asyncios(function) or not function.__closure__:
        return None
    for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True):
        if name == "coro":  # run_coroutine_threadsafe
            return _of_coroutine(cell.cell_contents)
        if name == "client_connected_cb":  # start_server's protocol factory
            return _of_callback(cell.cell_contents, ())
        if name == "self" and is_a(cell.cell_contents, sslproto.SSLProtocol):  # reads on, or begins to read again
            return _of_method(cell.cell_contents, private_sslproto.SSLProtocol._do_read, ())
    return None


def _behind_loop(name: str, args: tuple[Any, ...]) -> Site | None:
    """What a loop's method called ``name`` is about to schedule, to start or to accept connections for."""
    if name in _ACCEPTS and len(args) > 1:
        return _of_callback(args[0], ())._replace(detail=f"accepting on {_listens_on(args[1])}".removesuffix(" on "))
    at = _PASSES_ON.get(name, len(args))
    if at < len(args):
        return _of_callback(args[at], args[at + 1 :])
    if name == "create_task" and args:
        return _of_coroutine(args[0])
    return None


def _protocol_method(transport: Any, name: str, qualname: str) -> str | None:
    if name not in _READS:
        return _CALLS.get(name)
    if is_a(transport, (private_selector_events._SelectorDatagramTransport, asyncio.DatagramTransport)):
        return "datagram_received"
    # A pipe to write to is read from only to see that it was closed.
    return "connection_lost" if "WritePipeTransport." in qualname else "data_received"


def site_of_protocol(protocol: Any, method: str, transport: Any) -> Site:
    """A protocol's method as its transport calls it, and who the peer is."""
    return _of_protocol(protocol, method, _peer(transport))


def _of_protocol(protocol: Any, method: str, detail: str) -> Site:
    """The method of the program's protocol that asyncio comes to, through its own protocols in between."""
    for _ in range(_DEEPEST):
        if is_a(protocol, sslproto.SSLProtocol):
            inner = get(protocol, "_app_protocol")
        elif is_a(protocol, base_subprocess.WriteSubprocessPipeProto):
            inner = get(get(protocol, "proc"), "_protocol")
            if inner is not None and method in ("data_received", "connection_lost"):
                method = f"pipe_{method}"
        else:
            break
        if inner is None:
            break
        protocol = inner
    cls = class_of(protocol)
    if method == "data_received" and issubclass(cls, asyncio.BufferedProtocol):
        method = "buffer_updated"
    function = item(get(protocol, "__dict__"), method)
    function = find(cls, method) if function is None else function
    return Site(f"{class_name(cls)}.{method}", *_place(_innermost(function)[0]), detail=detail)


def _peer(transport: Any) -> str:
    """``from HOST:PORT``: what ``get_extra_info("peername")`` would say."""
    for _ in range(_DEEPEST):
        extra = get(transport, "_extra")
        name = _address(item(extra, "peername"))
        if name:
            return f"from {name}"
        transport = get(get(transport, "_ssl_protocol"), "_transport")
        if transport is None:
            break
    return ""


def _listens_on(sock: Any) -> str:
    try:
        return _address(_socket.socket.getsockname(sock)) if is_a(sock, _socket.socket) else ""
    except OSError:  # closed
        return ""


def _address(name: Any) -> str:
    """A socket's address as people write it; empty where it has none."""
    if is_a(name, tuple) and len(name) in (2, 4) and type(name[0]) is str and type(name[1]) is int:
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    if class_of(name) is bytes:  # Linux has names that are no paths; they begin with a zero byte
        name = name.replace(b"\0", b"@", 1).decode("utf-8", "replace")
    return text(name)


# ---- tasks and coroutines --------------------------------------------------------------------------------------------

_CARRIERS = ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable")
_PREFIXES: tuple[tuple[Any, str], ...] = ((CoroutineType, "cr"), (GeneratorType, "gi"), (AsyncGeneratorType, "ag"))
_named: dict[tuple[str, int, str], tuple[str, str, int]] = {}


def _of_task(task: Any) -> Site:
    base = private_tasks._PyTask if is_a(task, private_tasks._PyTask) else _TASKS[1]
    if not is_a(task, base):
        return _least(task)
    coro = coroutine_of(task)
    site = _least(task) if coro is None else _of_coroutine(coro)
    return site._replace(task_name=text(base.get_name(task)))


def _generator_in(obj: Any) -> Any:
    """The coroutine or generator that ``obj``, if it is one of the objects C puts around them, drives."""
    for _ in range(_DEEPEST):
        inner = get(obj, "_GeneratorWrapper__wrapped")  # types.coroutine, of what is no generator of C's
        if inner is None and qualname_of(class_of(obj)) in _CARRIERS:  # they have no attributes
            inner = next((held for held in gc.get_referents(obj) if _is_generator(held)), None)
        if inner is None:
            break
        obj = inner
    return obj


def _is_generator(obj: Any) -> bool:
    return is_a(obj, (CoroutineType, GeneratorType, AsyncGeneratorType)) or qualname_of(class_of(obj)) in _CARRIERS


def _prefix(coro: Any) -> str:
    for cls, prefix in _PREFIXES:
        if class_of(coro) is cls:
            return prefix
    return "gi" if find(class_of(coro), "gi_frame") is not None else "cr"  # Cython's, or nothing of the kind


def _of_coroutine(coro: Any) -> Site:
    coro = _generator_in(coro)
    qualname = text(get(coro, "__qualname__"))
    if not qualname or find(class_of(coro), "__qualname__") is None:
        return _least(coro)
    code = get(coro, f"{_prefix(coro)}_code")
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
            found = (
                (qualname, code.co_filename, code.co_firstlineno) if function is None else _of_function(function)[:3]
            )
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
        function = _innermost(obj)[0]
        for _ in range(_DEEPEST if obj is not None else 0):
            if get(obj, "__code__") is code and class_of(function) is FunctionType:
                found[id(function)] = function
                break
            obj = _inner(obj)
            if obj is None:
                break
    return next(iter(found.values())) if len(found) == 1 else None
