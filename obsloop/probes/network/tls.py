"""TLS handshakes: how long they took, and how they ended, in both roles.

The protocol here is asyncio's own with a clock. The loop makes it for connections that use TLS from the beginning. For
``start_tls``, asyncio makes its own protocol, which becomes this one when it is given to a transport, before its
handshake begins. A handshake is counted once, by what ended it first.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.asyncio_private import private_sslproto
from obsloop.base.guarded import guarded
from obsloop.events import ROLES
from obsloop.introspect.error_names import type_name
from obsloop.probes.network import connections

_CLIENT, _SERVER = ROLES
if TYPE_CHECKING:
    from asyncio.sslproto import SSLProtocol as _Stock
else:
    _Stock = getattr(private_sslproto, "SSLProtocol", object)
_OF_PROTOCOL = ("server_side", "server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout")


_CANCELLED = type_name(CancelledError)


class SSLProtocol(_Stock):
    """asyncio's own protocol, which reports when its handshake begins and ends."""

    _obsloop_since_ns = 0
    """When the handshake began; 0 outside of a handshake."""
    _obsloop_setup: Any = None
    """The connection that is being set up, if this side asked for it."""

    def _set_app_protocol(self, app_protocol: Any) -> None:
        adopt(app_protocol)  # TLS within TLS
        super()._set_app_protocol(app_protocol)

    def _start_handshake(self) -> None:
        self._obsloop_since_ns = clock.monotonic_ns()
        super()._start_handshake()

    def _check_handshake_timeout(self) -> None:
        if self._obsloop_since_ns:  # asyncio breaks it off with a ConnectionAbortedError
            _ended(self, "TimeoutError")
        super()._check_handshake_timeout()

    def _on_handshake_complete(self, handshake_exc: Any) -> None:
        if self._obsloop_since_ns:
            _ended(self, "" if handshake_exc is None else _error_of(handshake_exc))
        super()._on_handshake_complete(handshake_exc)

    def _call_eof_received(self, *args: Any) -> None:
        # The peer has ended the TLS connection. If this side now closes the socket, it still was not the first.
        stats = getattr(getattr(self, "_transport", None), "_obsloop_stats", None)
        if stats is not None:
            stats.reason = stats.reason or "eof"
        super()._call_eof_received(*args)  # type: ignore[misc]

    def _start_shutdown(self, *args: Any) -> None:
        if self._obsloop_since_ns:
            _ended(self, _given_up(self))
        super()._start_shutdown(*args)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._obsloop_since_ns:
            _ended(self, _given_up(self) if exc is None else _error_of(exc))
        super().connection_lost(exc)


for _attribute in ("__name__", "__qualname__", "__module__"):  # so that it looks like asyncio's own in logs and names
    setattr(SSLProtocol, _attribute, getattr(_Stock, _attribute))


def new_protocol(loop: Any, protocol: Any, sslcontext: Any, waiter: Any, kwargs: dict[str, Any]) -> Any:
    """Return the protocol for TLS over a new transport. Take its own arguments out of ``kwargs``."""
    own = {name: kwargs.pop(name) for name in _OF_PROTOCOL if name in kwargs}
    tls = SSLProtocol(loop, protocol, sslcontext, waiter, **own)
    tls._obsloop_setup = connections.handed_over(loop, protocol)
    return tls


def adopt(protocol: Any) -> None:
    """Make ``protocol`` an ``SSLProtocol`` of this module if it is asyncio's own for TLS."""
    if type(protocol) is _Stock:
        protocol.__class__ = SSLProtocol


def _error_of(exc: Any) -> str:
    return type_name(exc if isinstance(exc, type) else type(exc))  # asyncio may give the class alone


def _given_up(tls: Any) -> str:
    """Return the error of a handshake that this side gave up: its waiter was cancelled, or the server was closed."""
    waiter = tls._waiter
    return _CANCELLED if waiter is not None and waiter.cancelled() else "ConnectionAbortedError"


def _ended(tls: Any, error_type: str) -> None:
    since_ns, tls._obsloop_since_ns = tls._obsloop_since_ns, 0
    setup, tls._obsloop_setup = tls._obsloop_setup, None
    guarded(_count, tls, setup, clock.monotonic_ns() - since_ns, error_type)


def _count(tls: Any, setup: Any, duration_ns: int, error_type: str) -> None:
    if setup is not None:
        setup.shook_hands(duration_ns, error_type)
    loop = tls._loop
    role = _SERVER if tls._server_side else _CLIENT
    loop._obsloop.metrics_of(loop).labelled.time("asyncio.tls.handshake.duration", duration_ns, role, error_type)
