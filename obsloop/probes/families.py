"""Which kind of socket it really is: what a program says of a descriptor that it was given need not be true.

uvicorn's ``--fd`` and whoever else takes a listening socket from systemd or a supervisor with ``socket.fromfd`` names a
family, and what such a socket accepts takes it over.
"""

from __future__ import annotations

import socket
from typing import Any

UNIX = getattr(socket, "AF_UNIX", None)
_DOMAIN: int | None = getattr(socket, "SO_DOMAIN", None)  # Linux


def is_unix(sock: Any) -> bool:
    """Whether it is a Unix socket. The kernel is asked only of those that say so."""
    if UNIX is None or getattr(sock, "family", None) != UNIX:
        return False
    if _DOMAIN is None:
        return True
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, _DOMAIN) == UNIX)
    except (OSError, AttributeError):  # it is closed, or only looks like one
        return True
