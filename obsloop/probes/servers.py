"""Servers: what they accept, what keeps them from accepting, and how many connections each address has.

Accepting is asyncio's own. A listening socket is a ``Listener`` here, known by its address; while it accepts it is the
loop's current one, so that what asyncio does meanwhile is put down to it.
"""

from __future__ import annotations

import errno
import socket
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from obsloop._catalog import SERVER_ADDRESS
from obsloop._peek import class_of, clean
from obsloop.probes.errors import type_name
from obsloop.watch.guarded import guarded

if TYPE_CHECKING:
    from obsloop._rare import Rare
    from obsloop._snapshot import Value

_OUT_OF_RESOURCES = "socket.accept()"
"""How the message begins with which asyncio calls the exception handler when it cannot accept."""


class Listener:
    """One listening address of a loop."""

    __slots__ = ("active", "address", "sockets")

    def __init__(self, address: str) -> None:
        self.address = address
        self.active = 0
        """Connections that it has accepted and that are open."""
        self.sockets = 0
        """How many sockets listen on it."""


class Listeners:
    """Those of one loop. Written by its thread alone."""

    __slots__ = ("accepted", "by_address", "by_socket", "current")

    def __init__(self) -> None:
        self.by_address: dict[str, Listener] = {}
        self.by_socket: weakref.WeakKeyDictionary[Any, Listener] = weakref.WeakKeyDictionary()
        self.accepted: weakref.WeakKeyDictionary[Any, Listener] = weakref.WeakKeyDictionary()
        """Sockets that were accepted and have no transport yet."""
        self.current: Listener | None = None

    def of(self, sock: Any) -> Listener:
        """The listener of a listening socket."""
        listener = self.by_socket.get(sock)
        if listener is None:
            address = address_of(sock)
            listener = self.by_address.setdefault(address, Listener(address))
            listener.sockets += 1
            self.by_socket[sock] = listener
        return listener

    def reported(self, loop: Any, context: dict[str, Any]) -> None:
        """The exception handler is called, perhaps since asyncio cannot accept; then it will try again."""
        exc = context.get("exception")
        message = str(context.get("message"))
        if self.current is not None and isinstance(exc, OSError) and message.startswith(_OUT_OF_RESOURCES):
            _refused(loop, self.current, exc)

    def stopped(self, sock: Any) -> None:
        """The socket listens no more."""
        listener = self.by_socket.pop(sock, None)
        if listener is not None:
            listener.sockets -= 1
            self.forget(listener)

    def forget(self, listener: Listener) -> None:
        """Where it neither listens nor has a connection, nobody asks for it."""
        if not listener.sockets and not listener.active:
            self.by_address.pop(listener.address, None)


def address_of(sock: Any) -> str:
    """``127.0.0.1:80``, ``[::1]:80``, or a socket's path."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return clean(name if isinstance(name, str) else repr(name)) or "unnamed"


def serving(loop: Any, sock: Any) -> None:
    """``sock`` listens from now on, or again."""
    guarded(loop._obsloop.listeners.of, sock)


def stopped(loop: Any, sock: Any) -> None:
    """It does not listen any more."""
    guarded(loop._obsloop.listeners.stopped, sock)


def begin(loop: Any, sock: Any) -> None:
    """The loop is about to accept what ``sock`` has."""
    listeners = loop._obsloop.listeners

    def note() -> None:
        listeners.current = listeners.of(sock)

    guarded(note)


def end(loop: Any, exc: BaseException | None) -> None:
    """It has accepted; ``exc`` is what asyncio leaves to the loop."""
    listeners = loop._obsloop.listeners
    if isinstance(exc, OSError):
        guarded(_refused, loop, listeners.current, exc)
    listeners.current = None


def accepted(loop: Any, conn: Any) -> None:
    """A connection was accepted, and asyncio is about to make a transport for it."""
    guarded(_accepted, loop, conn)


def listener_of(loop: Any, conn: Any) -> Listener | None:
    """Who has accepted ``conn``, which gets its transport now."""
    listener: Listener | None = loop._obsloop.listeners.accepted.pop(conn, None)
    return listener


def points(loops: Iterable[Any], rare: Rare) -> dict[str, dict[tuple[str, ...], Value]]:
    """The connections of these loops' servers."""
    active: dict[tuple[str, ...], int] = {}
    for loop in loops:
        for listener in list(loop._obsloop.listeners.by_address.values()):
            key = (rare.fitting(SERVER_ADDRESS, listener.address),)
            active[key] = active.get(key, 0) + listener.active
    return {"asyncio.server.connections.active": {**active}}


def _accepted(loop: Any, conn: Any) -> None:
    listeners = loop._obsloop.listeners
    listener = listeners.current
    if listener is None:  # the loop listened before it was observed: the connection's own end has the address
        address = address_of(conn)
        listener = listeners.by_address.setdefault(address, Listener(address))
    if isinstance(conn, socket.socket):
        listeners.accepted[conn] = listener
    loop._obsloop.ledger_of(loop).rare.count("asyncio.server.accepted", listener.address)


def _refused(loop: Any, listener: Listener | None, exc: OSError) -> None:
    address = "" if listener is None else listener.address
    name = errno.errorcode.get(exc.errno or 0) or type_name(class_of(exc))
    loop._obsloop.ledger_of(loop).rare.count("asyncio.server.accept.errors", address, name)
