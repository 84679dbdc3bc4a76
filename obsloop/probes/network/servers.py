"""Servers: what each listening address accepts, what it cannot accept and why, and how many connections it has open.

A listening socket is known by its address. The ``Listener`` of the one that is accepting travels with the connection,
in the ``extra`` that asyncio hands from the accept to the transport; so a connection that never gets a transport leaves
nothing behind. Asyncio alone decides what an error in an accept means; here it is counted.
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
        """It has accepted a connection."""
        self._rare.count("asyncio.server.accepted", self.address)

    def failed(self, exception: BaseException) -> None:
        """It could not accept one."""
        name = errno_name(exception) or type_name(type(exception))
        self._rare.count("asyncio.server.accept.errors", self.address, name)

    def opened(self) -> None:
        """A connection that it has accepted got its transport."""
        self._active[self._shown] += 1

    def closed(self) -> None:
        """Such a connection is lost. Called once for each that was opened."""
        self._active[self._shown] -= 1


class Servers:
    """The listening sockets of one loop."""

    __slots__ = ("accepting", "active", "listeners")

    def __init__(self) -> None:
        self.accepting: Listener | None = None
        """The one that is accepting at this moment: nothing else of the loop runs meanwhile."""
        self.forget()

    def forget(self) -> None:
        """The loop is closed, or another process's: what it has open counts no more."""
        # New objects, so that connections which are lost later count down where nobody looks.
        self.active: dict[str, int] = {}
        """Open connections, by the address as it is shown."""
        self.listeners: weakref.WeakKeyDictionary[Any, Listener] = weakref.WeakKeyDictionary()


def accept(loop: Any, stock: Callable[..., None], factory: Any, sock: Any, args: Any, kwargs: Any) -> None:
    """What ``loop._accept_connection`` does: asyncio's own ``stock``, and who it is that accepts."""
    servers: Servers = loop._obsloop.servers
    guarded(_begin, loop, servers, sock)
    try:
        stock(factory, sock, *args, **kwargs)
    except OSError as exc:  # asyncio does not know it, and leaves it to the exception handler
        if servers.accepting is not None:
            guarded(servers.accepting.failed, exc)
        raise
    finally:
        servers.accepting = None


def accepted(loop: Any, extra: Any) -> None:
    """A connection has been accepted; ``extra`` is what its transport will be given."""
    listener = loop._obsloop.servers.accepting
    if listener is not None:
        guarded(listener.accepted)
        extra[_KEY] = listener


def listener_of(extra: Any) -> Listener | None:
    """Who accepted the connection whose transport is given ``extra``. To be asked once: it is taken out."""
    return extra.pop(_KEY, None) if extra else None


def adopt(loop: Any) -> None:
    """The loop has just become an observed one: its servers go on accepting, the observed way."""
    guarded(_adopt, loop)


def collect(loops: Iterable[Any], labelled: LabelledMetrics) -> dict[str, dict[tuple[str, ...], Value]]:
    """The open connections of these loops, by address; 0 for an address that has none any more."""
    active: dict[tuple[str, ...], int] = {(address,): 0 for address in labelled.shown(SERVER_ADDRESS)}
    for loop in loops:
        for address, n in list(loop._obsloop.servers.active.items()):
            active[address,] = active.get((address,), 0) + n
    return {"asyncio.server.connections.active": {**active}}


def address_of(sock: Any) -> str:
    """``127.0.0.1:8080``, ``[::1]:8080``, a Unix socket's path; ``@name`` where that is not in the file system."""
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
    # What watches a listening socket holds the stock loop's own method; it is given the one that the loop has now.
    for key in list(loop._selector.get_map().values()):
        data: Any = key.data
        reader = data[0] if class_of(data) is tuple else None
        if reader is not None and getattr(reader._callback, "__func__", None) is _stock_accept:
            reader._callback = loop._accept_connection
