"""The method of the program's protocol that a transport calls, and the address of its peer.

It never raises and runs no code of the program: it reads objects with ``attributes``. It keeps only strings.
"""

from __future__ import annotations

import _socket
import asyncio
from asyncio import base_subprocess, sslproto
from typing import Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.introspect.attributes import (
    class_name,
    class_of,
    find,
    get,
    is_a,
    item,
    text,
)
from obsloop.introspect.functions import DEEPEST, Site, innermost_function, place_of

BETWEEN: tuple[type[Any], ...] = (sslproto.SSLProtocol, base_subprocess.WriteSubprocessPipeProto)
"""asyncio's own protocols, which call the program's."""

THROUGH = {
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
    "_write_send": "resume_writing",  # asyncio chooses this or the next, by what the socket can do
    "_write_sendmsg": "resume_writing",
    "_sendto_ready": "resume_writing",
    "_call_connection_lost": "connection_lost",
    "_process_exited": "process_exited",
}
"""The protocol's method that each method of a transport calls. For reads it depends on the kinds of both."""


def protocol_method(transport: Any, name: str, qualname: str) -> str | None:
    if name not in _READS:
        return _CALLS.get(name)
    if is_a(transport, (private_selector_events._SelectorDatagramTransport, asyncio.DatagramTransport)):
        return "datagram_received"
    # A transport of a writable pipe reads from it only to see that it was closed.
    return "connection_lost" if "WritePipeTransport." in qualname else "data_received"


def site_of_protocol(protocol: Any, method: str, transport: Any) -> Site:
    """Return the site of the protocol's method that a transport calls, with the peer."""
    return of_protocol(protocol, method, peer_of(transport))


def of_protocol(protocol: Any, method: str, detail: str) -> Site:
    """Return the site of the program's protocol method that asyncio calls in the end, through its own protocols."""
    for _ in range(DEEPEST):
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
    return Site(f"{class_name(cls)}.{method}", *place_of(innermost_function(function)[0]), detail=detail)


def peer_of(transport: Any) -> str:
    """Return ``from HOST:PORT``, as in ``get_extra_info("peername")``; empty if there is no peer."""
    for _ in range(DEEPEST):
        extra = get(transport, "_extra")
        name = _address(item(extra, "peername"))
        if name:
            return f"from {name}"
        transport = get(get(transport, "_ssl_protocol"), "_transport")
        if transport is None:
            break
    return ""


def listens_on(sock: Any) -> str:
    try:
        return _address(_socket.socket.getsockname(sock)) if is_a(sock, _socket.socket) else ""
    except OSError:  # closed
        return ""


def _address(name: Any) -> str:
    """Return a socket's address as people write it; empty if it has none."""
    if is_a(name, tuple) and len(name) in (2, 4) and type(name[0]) is str and type(name[1]) is int:
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    if class_of(name) is bytes:  # on Linux, a name that begins with a zero byte is no path
        name = name.replace(b"\0", b"@", 1).decode("utf-8", "replace")
    return text(name)
