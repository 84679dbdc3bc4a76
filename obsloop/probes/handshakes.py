"""TLS handshakes: how long they take, on which side, and what they fail with.

asyncio's own ``SSLProtocol`` does all the work; the subclass here notes when its handshake begins and how it ends, once
for each, whichever of the ways out it takes: complete, refused by either side, timed out, hung up on, given up by who
waited.
"""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import Any

from obsloop import _clock
from obsloop._events import ROLES
from obsloop._peek import class_of
from obsloop.probes.errors import type_name
from obsloop.watch.guarded import guarded

CLIENT, SERVER = ROLES
_IN_HANDSHAKE = getattr(getattr(sslproto, "SSLProtocolState", None), "DO_HANDSHAKE", None)


class Handshake(sslproto.SSLProtocol):
    """``asyncio.sslproto.SSLProtocol``, its handshake timed."""

    _obsloop_began_ns = 0
    """When the handshake began; 0 when none goes on."""
    _obsloop_took_ns: int | None = None
    _obsloop_timed_out = False

    def _start_handshake(self: Any) -> None:
        self._obsloop_began_ns = _clock.monotonic_ns()
        super()._start_handshake()

    def _check_handshake_timeout(self: Any) -> None:
        self._obsloop_timed_out = self._state == _IN_HANDSHAKE
        super()._check_handshake_timeout()

    def _on_handshake_complete(self: Any, handshake_exc: Any) -> None:
        guarded(_ended, self, handshake_exc)  # first: the program's connection_made is called within
        super()._on_handshake_complete(handshake_exc)

    def connection_lost(self: Any, exc: BaseException | None) -> None:
        """The connection is gone, perhaps in the middle of the handshake."""
        if self._obsloop_began_ns:
            # asyncio gives up a handshake that nobody waits for any more by aborting, without an error.
            error = TimeoutError if self._obsloop_timed_out else exc or asyncio.CancelledError
            guarded(_ended, self, error)
        super().connection_lost(exc)

    def _call_eof_received(self: Any, *args: Any) -> None:
        """The peer has ended the TLS connection: it, and not this side, which closes the socket for that."""
        link = getattr(self._transport, "_obsloop_link", None)
        if link is not None and not link.reason:
            link.reason = "eof"
        super()._call_eof_received(*args)  # type: ignore[misc]

    def _set_app_protocol(self: Any, app_protocol: Any) -> None:
        super()._set_app_protocol(adopt(app_protocol))


Handshake.__name__ = Handshake.__qualname__ = sslproto.SSLProtocol.__name__  # as its repr begins


def adopt(protocol: Any) -> Any:
    """A protocol that a transport is given; one that ``start_tls`` has made is timed from now on."""
    if class_of(protocol) is sslproto.SSLProtocol:
        protocol.__class__ = Handshake
    return protocol


def took_ns(protocol: Handshake) -> int:
    """How long its handshake took, or has taken until now."""
    if protocol._obsloop_took_ns is not None:
        return protocol._obsloop_took_ns
    began_ns = protocol._obsloop_began_ns
    return _clock.monotonic_ns() - began_ns if began_ns else 0


def _ended(protocol: Any, error: Any) -> None:
    began_ns, protocol._obsloop_began_ns = protocol._obsloop_began_ns, 0
    if not began_ns:
        return
    protocol._obsloop_took_ns = _clock.monotonic_ns() - began_ns
    cls = error if isinstance(error, type) else class_of(error)
    loop = protocol._loop
    loop._obsloop.ledger_of(loop).rare.time(
        "asyncio.tls.handshake.duration",
        protocol._obsloop_took_ns,
        SERVER if protocol._server_side else CLIENT,
        "" if error is None else type_name(cls),
    )
