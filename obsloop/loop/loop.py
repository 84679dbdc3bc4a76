"""Define ``Loop``: asyncio's selector loop with the backend's hot path.

A method that runs per handle is in ``hotpath``; every other overridden method is here. All else is inherited as it is:
connections, servers, pipes, signals, subprocesses and executors reach the loop through these few methods.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

from obsloop.base import clock
from obsloop.base.settings import Settings
from obsloop.hotpath import backend, cold_path
from obsloop.loop.observation import Observed, observe
from obsloop.metrics.counters import SIGNAL
from obsloop.probes import dns, executors, processes, signals
from obsloop.probes.network import connections, servers
from obsloop.probes.network.transports import factory, pipes

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


def _as_stock(method: Any) -> Any:
    """Give a method that passes its arguments on the signature of the stock loop's in this version of Python."""
    method.__signature__ = inspect.signature(getattr(asyncio.SelectorEventLoop, method.__name__))
    return method


def _returns_coroutine(method: Any) -> Any:
    """Mark a plain function that returns asyncio's coroutine as a coroutine function."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        return mark(method)
    method._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)  # CPython 3.11
    return method


def _public_coroutine(method: Any) -> Any:
    """Do the same for a public method. On CPython 3.11, where ``inspect`` knows no mark, it costs a frame."""
    if hasattr(inspect, "markcoroutinefunction"):
        return _returns_coroutine(method)

    @functools.wraps(method)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return await method(*args, **kwargs)

    return coroutine


class Loop(Observed):
    """An ``asyncio.SelectorEventLoop`` that times every handle it runs.

    A program runs on it as on the stock loop. ``settings`` default to the ``OBSLOOP_*`` variables; a bad one is
    logged, and its default is used.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None, *, settings: Settings | None = None) -> None:
        backend.forget()
        super().__init__(selector)
        observe(self, settings or Settings.from_env(strict=False))
        backend.wake_once(self)

    def run_forever(self) -> None:
        """Run until ``stop()`` is called, as on the stock loop."""
        if self.is_running():
            super().run_forever()  # refuses
        # A subclass that overrides _run_once expects one iteration a call. obsloop's goes on until the loop stops,
        # which is cheaper.
        self._obsloop.iterating = getattr(self._run_once, "__func__", None) is backend.run_once
        try:
            super().run_forever()
        finally:
            self._obsloop.iterating = False
            if not self.is_running() and self._obsloop.counters is not None:
                # Already done by run_once, unless a subclass stopped the loop after it.
                cold_path.end_run(self._obsloop.counters, clock.monotonic_ns())

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Call ``func(*args)`` in ``executor`` (None: the default one), as on the stock loop."""
        return cast("asyncio.Future[_T]", executors.run(self, executor, func, args))

    def _check_call(self, callback: Any, method: str) -> None:
        """Check what the stock loop checks before it schedules ``callback``, in the same order."""
        self._check_closed()
        if self._debug:
            self._check_thread()
            self._check_callback(callback, method)

    def _add_callback(self, handle: Any) -> None:
        """Add a handle that did not become ready by ``call_soon``: from a selector that is not epoll, or a signal."""
        if isinstance(handle, backend.Handle):
            handle._ready_ns = clock.monotonic_ns()
        super()._add_callback(handle)

    def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None:
        self._obsloop.stamp(handle, SIGNAL, clock.monotonic_ns())
        super()._add_callback_signalsafe(handle)

    def _handle_signal(self, sig: int) -> None:
        """Handle a signal that arrived through the loop's own pipe."""
        signals.delivered(self, sig)
        super()._handle_signal(sig)

    if not TYPE_CHECKING:  # type checkers see the stock loop's own signatures, which differ between versions
        # A method that returns asyncio's own coroutine, or one of obsloop's, adds no frame to the steps of its task.

        @_as_stock
        @_public_coroutine
        def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **kwargs: Any) -> Any:
            """Open a stream connection, as on the stock loop."""
            if not connections.reported(self):
                return super().create_connection(protocol_factory, host, port, **kwargs)
            setup = connections.Setup(self, "tcp", protocol_factory, host, port, kwargs)
            if "local_addr" in kwargs:
                kwargs["local_addr"] = setup.carried(kwargs["local_addr"])
            return setup.run(super().create_connection(setup, host, port, **kwargs))

        @_as_stock
        @_public_coroutine
        def create_unix_connection(self, protocol_factory: Any, path: Any = None, **kwargs: Any) -> Any:
            """Open a connection to a Unix socket, as on the stock loop."""
            if not connections.reported(self):
                return super().create_unix_connection(protocol_factory, path, **kwargs)
            setup = connections.Setup(self, "unix", protocol_factory, path, None, kwargs)
            return setup.run(super().create_unix_connection(setup, path, **kwargs))

        @_as_stock
        @_public_coroutine
        def create_datagram_endpoint(
            self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **kwargs: Any
        ) -> Any:
            """Open a datagram socket, as on the stock loop."""
            if not connections.reported(self):
                return super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **kwargs)
            setup = connections.datagram(self, protocol_factory, local_addr, remote_addr, kwargs)
            local_addr, remote_addr = setup.carried(local_addr), setup.carried(remote_addr)
            return setup.run(super().create_datagram_endpoint(setup, local_addr, remote_addr, **kwargs))

        @_as_stock
        async def getaddrinfo(
            self, host: Any, port: Any, *, family: Any = 0, type: Any = 0, proto: Any = 0, flags: Any = 0
        ) -> Any:
            """Look up a name, as on the stock loop. An address needs no thread."""
            submits = getattr(self.run_in_executor, "__func__", None) is Loop.run_in_executor
            if submits and (found := dns.needs_no_thread(self, host, port, family, flags)):
                return dns.answer(self, found, host, port, family, type, proto, flags)
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)

        @_as_stock
        @_public_coroutine
        def sock_connect(self, sock: Any, address: Any) -> Any:
            """Connect ``sock`` to ``address``, as on the stock loop."""
            return connections.connect(self, super().sock_connect, sock, address)

    @_returns_coroutine
    def _ensure_resolved(self, address: Any, **kwargs: Any) -> Any:
        """Resolve an address to connect to or bind. asyncio calls it for every one, even if it is no name."""
        return connections.resolve(self, super()._ensure_resolved, address, kwargs)

    def _make_ssl_transport(
        self, rawsock: Any, protocol: Any, sslcontext: Any, waiter: Any = None, **kwargs: Any
    ) -> Any:
        return factory.make_tls(self, rawsock, protocol, sslcontext, waiter, kwargs)

    def _accept_connection(self, protocol_factory: Any, sock: Any, *args: Any, **kwargs: Any) -> None:
        """Accept the waiting connections of a listening socket."""
        servers.accept(self, super()._accept_connection, protocol_factory, sock, args, kwargs)

    @_returns_coroutine
    def _accept_connection2(self, protocol_factory: Any, conn: Any, extra: Any, *args: Any, **kwargs: Any) -> Any:
        """Count an accepted connection, which is about to get a protocol and a transport."""
        servers.accepted(self, extra)
        return super()._accept_connection2(protocol_factory, conn, extra, *args, **kwargs)

    def _make_socket_transport(self, sock: Any, protocol: Any, waiter: Any = None, **kwargs: Any) -> Any:
        return factory.make_socket(self, sock, protocol, waiter, kwargs)

    def _make_datagram_transport(self, sock: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        return factory.make_datagram(self, sock, protocol, args, kwargs)

    def _make_read_pipe_transport(self, pipe: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        return factory.make_pipe(self, pipes.ReadPipeTransport, pipe, protocol, args, kwargs)

    def _make_write_pipe_transport(self, pipe: Any, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        return factory.make_pipe(self, pipes.WritePipeTransport, pipe, protocol, args, kwargs)

    @_returns_coroutine
    def _create_connection_transport(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        """Make the transport of a connected socket; ``server_side`` if other code than this loop accepted it."""
        coro = super()._create_connection_transport(sock, *args, **kwargs)
        return factory.accepted_elsewhere(self, sock, coro) if kwargs.get("server_side") else coro

    async def _sendfile_native(self, transp: Any, file: Any, offset: Any, count: Any) -> int:
        """Count a file that a transport sends past its own buffer."""
        with factory.sending(self, transp):
            return await super()._sendfile_native(transp, file, offset, count)

    def _sock_sendfile_native_impl(self, fut: Any, registered_fd: Any, sock: Any, *args: Any) -> None:
        super()._sock_sendfile_native_impl(fut, registered_fd, sock, *args)
        if self._obsloop.sending:
            factory.sent(self, sock, args[-1])

    def _make_subprocess_transport(self, protocol: Any, args: Any, shell: Any, *pipes: Any, **kwargs: Any) -> Any:
        """Start a subprocess, by exec or by shell. Nothing else runs until its watcher has a callback."""
        processes.start(self, args, shell, kwargs.get("executable"))
        return super()._make_subprocess_transport(protocol, args, shell, *pipes, **kwargs)

    @property
    def _child_watcher_callback(self) -> Any:
        """The callback for a child's watcher. asyncio reads it once for each child, after the fork."""
        return processes.watcher_callback(self, super()._child_watcher_callback, sys._getframe(1))


# The hot path: call_soon and the other scheduling methods, and _run_once. The functions become methods.
for _name, _method in backend.METHODS.items():
    setattr(Loop, _name, _method)
