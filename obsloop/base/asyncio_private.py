"""The private parts of asyncio that obsloop uses, with the types that typeshed does not have.

This file is only for the type checkers. ``base.asyncio_check`` checks at run time that the parts exist.
"""

import asyncio
from asyncio import base_events, events, format_helpers, futures, selector_events, sslproto, tasks
from collections import deque
from typing import TYPE_CHECKING, Any

private_base_events: Any = base_events
private_events: Any = events
private_format_helpers: Any = format_helpers
private_futures: Any = futures
private_selector_events: Any = selector_events
private_sslproto: Any = sslproto
private_tasks: Any = tasks
try:
    import _asyncio as accelerator
except ImportError:
    accelerator: Any = None  # type: ignore[no-redef]
# Not `asyncio.tasks._CTask`: `nest_asyncio.apply()` puts the pure Python classes there.
C_FUTURE: Any = getattr(accelerator, "Future", None)
C_TASK: Any = getattr(accelerator, "Task", None)
private_unix_events: Any = getattr(asyncio, "unix_events", None)  # not on Windows

if TYPE_CHECKING:

    class Handle(asyncio.Handle):
        _callback: Any
        _args: Any
        _context: Any
        _loop: Any
        _cancelled: bool
        _repr: str | None
        _source_traceback: Any
        _kind: int
        _ready_ns: int

    class TimerHandle(asyncio.TimerHandle):
        _callback: Any
        _args: Any
        _loop: Any
        _cancelled: bool
        _scheduled: bool
        _when: float

    class SelectorEventLoop(asyncio.SelectorEventLoop):
        _debug: bool
        _ready: deque[Any]
        _scheduled: list[Any]

        def _run_once(self) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_thread(self) -> None: ...
        def _check_callback(self, callback: Any, method: str) -> None: ...
        def _add_callback(self, handle: asyncio.Handle) -> None: ...
        def _handle_signal(self, sig: int) -> None: ...
        def _make_subprocess_transport(
            self, protocol: Any, args: Any, shell: Any, *pipes: Any, **kwargs: Any
        ) -> Any: ...
        def _make_socket_transport(self, sock: Any, protocol: Any, waiter: Any = None, **kwargs: Any) -> Any: ...
        def _make_datagram_transport(self, sock: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any: ...
        def _make_read_pipe_transport(self, pipe: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any: ...
        def _make_write_pipe_transport(self, pipe: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any: ...
        async def _create_connection_transport(self, sock: Any, *args: Any, **kwargs: Any) -> Any: ...
        async def _sendfile_native(self, transp: Any, file: Any, offset: Any, count: Any) -> int: ...
        def _sock_sendfile_native_impl(self, fut: Any, registered_fd: Any, sock: Any, *args: Any) -> None: ...
        async def _ensure_resolved(self, address: Any, **kwargs: Any) -> Any: ...
        def _make_ssl_transport(
            self, rawsock: Any, protocol: Any, sslcontext: Any, waiter: Any = None, **kwargs: Any
        ) -> Any: ...
        def _accept_connection(self, protocol_factory: Any, sock: Any, *args: Any, **kwargs: Any) -> None: ...
        def _accept_connection2(self, protocol_factory: Any, conn: Any, extra: Any, *a: Any, **kw: Any) -> Any: ...
        @property
        def _child_watcher_callback(self) -> Any: ...
        def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None: ...

else:
    from asyncio import Handle, SelectorEventLoop, TimerHandle

__all__ = [
    "C_FUTURE",
    "C_TASK",
    "Handle",
    "SelectorEventLoop",
    "TimerHandle",
    "private_base_events",
    "private_events",
    "private_format_helpers",
    "private_futures",
    "private_selector_events",
    "private_sslproto",
    "private_tasks",
    "private_unix_events",
]
