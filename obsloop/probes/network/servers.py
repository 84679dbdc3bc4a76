"""Servers: what each listening address accepts, what it cannot accept and why, and how many connections it has open.

A listening socket is known by its address. The accepting socket's ``Listener`` travels with the connection, in the
``extra`` that asyncio passes from the accept to the transport. So a connection that never gets a transport leaves
nothing behind. asyncio alone decides what an error in an accept means; here it is counted.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.base.guarded import guarded
from obsloop.introspect.attributes import class_of, clean
from obsloop.introspect.error_names import errno_name, type_name
from obsloop.metrics.catalog import SERVER_ADDRESS
from obsloop.probes.network.socket_family import is_unix

if TYPE_CHECKING:
    from obsloop.metrics.labelled import LabelledMetrics
    from obsloop.metrics.snapshot import Value

_KEY = "obsloop.listener"
_stock_accept: Any = getattr(private_selector_events.BaseSelectorEventLoop, "_accept_connection", None)


class Listener:
    """One listening socket of one loop."""

    __slots__ = ("_active", "_rare", "_shown", "address")

    def __init__(self, address: str, labelled: LabelledMetrics, active: dict[str, int]) -> None:
        self.address = address
        self._rare, self._active = labelled, active
        self._shown = labelled.fitting(SERVER_ADDRESS, address)
        active.setdefault(self._shown, 0)

    def accepted(self) -> None:
        """Count an accepted connection."""
        self._rare.count("asyncio.server.accepted", self.address)

    def failed(self, exception: BaseException) -> None:
        """Count a connection that could not be accepted."""
        name = errno_name(exception) or type_name(type(exception))
        self._rare.count("asyncio.server.accept.errors", self.address, name)

    def opened(self) -> None:
        """Note that an accepted connection got its transport."""
        self._active[self._shown] += 1

    def closed(self) -> None:
        """Note that such a connection was lost. Called once for each that was opened."""
        self._active[self._shown] -= 1


class Servers:
    """The listening sockets of one loop."""

    __slots__ = ("accepting", "active", "listeners")

    def __init__(self) -> None:
        self.accepting: Listener | None = None
        """The listener that is accepting at this moment. Nothing else of the loop runs meanwhile."""
        self.forget()

    def forget(self) -> None:
        """Forget all connections: the loop is closed, or belongs to another process."""
        # New objects: connections that are lost later count down in the old ones, which nothing reads.
        self.active: dict[str, int] = {}
        """Open connections, by address as shown."""
        self.listeners: weakref.WeakKeyDictionary[Any, Listener] = weakref.WeakKeyDictionary()


def accept(loop: Any, stock: Callable[..., None], factory: Any, sock: Any, args: Any, kwargs: Any) -> None:
    """Accept as ``loop._accept_connection`` does: call asyncio's ``stock``, and note which socket accepts."""
    servers: Servers = loop._obsloop.servers
    guarded(_begin, loop, servers, sock)
    try:
        stock(factory, sock, *args, **kwargs)
    except OSError as exc:  # asyncio does not handle it, and leaves it to the exception handler
        if servers.accepting is not None:
            guarded(servers.accepting.failed, exc)
        raise
    finally:
        servers.accepting = None


def accepted(loop: Any, extra: Any) -> None:
    """Note an accepted connection. ``extra`` is what its transport will be given."""
    listener = loop._obsloop.servers.accepting
    if listener is not None:
        guarded(listener.accepted)
        extra[_KEY] = listener


def listener_of(extra: Any) -> Listener | None:
    """Return the listener of the connection whose transport is given ``extra``. Call it once: it takes it out."""
    return extra.pop(_KEY, None) if extra else None


def adopt(loop: Any) -> None:
    """Let the servers of a loop that has just become an observed one accept in the observed way."""
    guarded(_adopt, loop)


def collect(loops: Iterable[Any], labelled: LabelledMetrics) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return the open connections of these loops, by address; 0 for an address that has none any more."""
    active: dict[tuple[str, ...], int] = {(address,): 0 for address in labelled.shown(SERVER_ADDRESS)}
    for loop in loops:
        for address, n in list(loop._obsloop.servers.active.items()):
            active[address,] = active.get((address,), 0) + n
    return {"asyncio.server.connections.active": {**active}}


def address_of(sock: Any) -> str:
    """Return ``127.0.0.1:8080``, ``[::1]:8080``, or a Unix socket's path (``@name`` if not in the file system)."""
    name = sock.getsockname()
    if is_unix(sock):
        path = os.fsdecode(name)
        return clean(f"@{path[1:]}" if path.startswith("\0") else path)
    host, port = name[:2]
    return clean(f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}")


def _begin(loop: Any, servers: Servers, sock: Any) -> None:
    listener = servers.listeners.get(sock)
    if listener is None:
        listener = Listener(address_of(sock), loop._obsloop.metrics_of(loop).labelled, servers.active)
        servers.listeners[sock] = listener
    servers.accepting = listener


def _adopt(loop: Any) -> None:
    # The handle of a listening socket holds the stock loop's method. Give it the method that the loop has now.
    for key in list(loop._selector.get_map().values()):
        data: Any = key.data
        reader = data[0] if class_of(data) is tuple else None
        if reader is not None and getattr(reader._callback, "__func__", None) is _stock_accept:
            reader._callback = loop._accept_connection
