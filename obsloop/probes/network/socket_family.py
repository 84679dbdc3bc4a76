"""Which kind of socket an object is, checked with the kernel where it may be wrong.

A program that is given a descriptor states its family, and may be wrong: uvicorn's ``--fd``, and other programs that
take a listening socket from systemd or a supervisor with ``socket.fromfd``. Sockets that it accepts inherit the error.
"""

from __future__ import annotations

import socket
from typing import Any

from obsloop.introspect.attributes import class_of

UNIX = getattr(socket, "AF_UNIX", None)
_DOMAIN: int | None = getattr(socket, "SO_DOMAIN", None)  # Linux

# As C keeps them. Python's properties of the same names make a member of an enum each time, which takes 2 us.
_family: Any = vars(socket.SocketType)["family"].__get__
_type: Any = vars(socket.SocketType)["type"].__get__


def family_of(sock: Any) -> Any:
    """Return the family that the socket claims to have; None for other objects."""
    return _family(sock) if class_of(sock) is socket.socket else getattr(sock, "family", None)


def is_stream(sock: Any) -> bool:
    """Return whether it is a stream socket."""
    kind = _type(sock) if class_of(sock) is socket.socket else getattr(sock, "type", None)
    return bool(kind == socket.SOCK_STREAM)


def is_unix(sock: Any) -> bool:
    """Return whether it is a Unix socket. Ask the kernel only if it claims to be one."""
    if UNIX is None or family_of(sock) != UNIX:
        return False
    if _DOMAIN is None:
        return True
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, _DOMAIN) == UNIX)
    except (OSError, AttributeError):  # it is closed, or no real socket
        return True
