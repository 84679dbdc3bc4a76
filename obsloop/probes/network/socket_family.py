"""Which kind of socket it is, and that it is what it says.

A program that is given a descriptor names its family, and need not be right: uvicorn's ``--fd`` and whoever else takes
a listening socket from systemd or a supervisor with ``socket.fromfd``. What such a socket accepts takes it over.
"""

from __future__ import annotations

import socket
from typing import Any

from obsloop.introspect.attributes import class_of

UNIX = getattr(socket, "AF_UNIX", None)
_DOMAIN: int | None = getattr(socket, "SO_DOMAIN", None)  # Linux

# As C keeps them. Python's properties of the same names make an enum's member each time, which takes 2 us.
_family: Any = vars(socket.SocketType)["family"].__get__
_type: Any = vars(socket.SocketType)["type"].__get__


def family_of(sock: Any) -> Any:
    """The family that it says it has; None for what is no socket."""
    return _family(sock) if class_of(sock) is socket.socket else getattr(sock, "family", None)


def is_stream(sock: Any) -> bool:
    """Whether it is a stream socket."""
    kind = _type(sock) if class_of(sock) is socket.socket else getattr(sock, "type", None)
    return bool(kind == socket.SOCK_STREAM)


def is_unix(sock: Any) -> bool:
    """Whether it is a Unix socket. The kernel is asked only of those that say so."""
    if UNIX is None or family_of(sock) != UNIX:
        return False
    if _DOMAIN is None:
        return True
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, _DOMAIN) == UNIX)
    except (OSError, AttributeError):  # it is closed, or only looks like one
        return True
