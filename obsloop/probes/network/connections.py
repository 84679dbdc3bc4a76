"""Connections that this side asks for: the look-up of the name, each attempt to connect, TLS, and how it ended.

All attempts pass through ``loop.sock_connect``, where they are counted. To find what belongs to one call of
``create_connection``, a record travels through asyncio's own code: the ``Setup`` is the protocol's factory, and the
addresses to connect to carry it. Only to the first step it is passed in a slot of the loop, from which it is taken
before anything else can run. So obsloop puts nothing into the program's context, and leaves nothing after the call.
A connection that begins while no instrument listens has no record, and no event when it ends.
"""

from __future__ import annotations

import os
import socket
from asyncio import CancelledError, current_task
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from obsloop.base import clock
from obsloop.base.asyncio_private import private_base_events
from obsloop.base.clock import epoch
from obsloop.base.guarded import guarded
from obsloop.events import PHASES, Attempt, ConnectionSetUp
from obsloop.instruments import emit, has_listeners
from obsloop.introspect import callbacks, coroutines
from obsloop.introspect.attributes import class_of, clean
from obsloop.introspect.error_names import error_name, type_name
from obsloop.probes.dns import error_name as look_up_error_name
from obsloop.probes.network.socket_family import UNIX, family_of, is_stream, is_unix

_DNS, _CONNECT, _TLS, _PROTOCOL = PHASES
_NETWORK_TYPES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6", UNIX: "unix"}
_CANCELLED = type_name(CancelledError)


class _Carrier(tuple[Any, ...]):
    """An address, and the record of the call that asked for it."""

    record: Any


def _carry(address: Any, record: Any) -> Any:
    if class_of(address) is not tuple:
        return address
    carrier = _Carrier(address)
    carrier.record = record
    return carrier


class _Attempting:
    """One call of ``sock_connect``."""

    __slots__ = ("address", "duration_ns", "error_type", "looking_up", "started_ns")

    def __init__(self, address: Any) -> None:
        self.address = address
        self.looking_up = False
        self.started_ns = clock.monotonic_ns()
        self.duration_ns = -1
        self.error_type = ""

    def look_up(self, address: Any, kwargs: dict[str, Any]) -> None:
        self.looking_up = True

    def looked_up(self) -> None:
        """Note that the look-up is over and connecting begins."""
        self.looking_up = False
        self.started_ns = clock.monotonic_ns()

    def shown(self) -> Attempt:
        over = self.duration_ns >= 0  # else it is about to be cancelled
        duration_ns = self.duration_ns if over else clock.monotonic_ns() - self.started_ns
        host, port = _host_and_port(self.address)
        return Attempt(
            address=host,
            port=port,
            duration=duration_ns / 1e9,
            started_at=epoch(self.started_ns),
            error_type=self.error_type if over else _CANCELLED,
        )


class Setup:
    """One call of ``create_connection`` or a similar method. For asyncio it is the protocol's factory."""

    __slots__ = (
        "_address",
        "_attempts",
        "_context",
        "_error_type",
        "_factory",
        "_first_step",
        "_look_ups",
        "_loop",
        "_phase",
        "_protocol",
        "_started_ns",
        "_tls",
        "_tls_ns",
        "_tls_started_ns",
        "transport",
    )

    def __init__(self, loop: Any, transport: str, factory: Any, host: Any, port: Any, kwargs: dict[str, Any]) -> None:
        self._loop, self._factory, self.transport = loop, factory, transport
        self._tls = bool(kwargs.get("ssl"))
        self._address = host, port
        self._context = copy_context()
        self._started_ns = clock.monotonic_ns()
        self._look_ups: list[tuple[Any, dict[str, Any], int, int]] = []
        """Address, arguments of the look-up, when that began, and when it ended (0: not yet)."""
        self._attempts: list[_Attempting] = []
        self._tls_ns: int | None = None
        self._tls_started_ns = 0
        self._error_type = self._phase = ""
        self._protocol: Any = None
        sock = kwargs.get("sock")
        self._first_step = sock is None and transport != "udp"
        """Whether asyncio's first step takes this record from the loop's slot: not with a socket, and not for UDP."""
        if sock is not None:
            guarded(self._of_socket, sock)

    async def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run asyncio's own ``coro``, and report how it ended."""
        obs = self._loop._obsloop
        if self._first_step:
            obs.setup = self
        try:
            result = await coro
        except (Exception, CancelledError) as exc:
            guarded(self._ended, exc)
            raise
        finally:
            if obs.setup is self:
                obs.setup = None
        guarded(self._ended, None)
        return result

    # ---- what asyncio calls, in this order ---------------------------------------------------------------------------

    def look_up(self, address: Any, kwargs: dict[str, Any]) -> None:
        """Note that the look-up of an address, a name or not, begins."""
        self._phase = _DNS
        self._look_ups.append((tuple(address), kwargs, clock.monotonic_ns(), 0))

    def looked_up(self) -> None:
        """Note that the look-up ended without an error."""
        self._phase = _CONNECT
        self._look_ups[-1] = (*self._look_ups[-1][:3], clock.monotonic_ns())

    def connects(self, attempt: _Attempting) -> None:
        """Note that an attempt to connect begins."""
        self._phase = _CONNECT
        self._attempts.append(attempt)

    def __call__(self) -> Any:
        """Make the program's protocol. asyncio's next call makes the transport."""
        self._phase = _PROTOCOL
        protocol = self._factory()
        if self._tls:
            self._phase = _TLS
            self._protocol = protocol
            self._loop._obsloop.setup = self
        return protocol

    def shook_hands(self, duration_ns: int, error_type: str) -> None:
        """Note that the TLS handshake is over."""
        self._tls_ns = duration_ns
        self._tls_started_ns = clock.monotonic_ns() - duration_ns
        self._error_type = error_type
        if not error_type:
            self._phase = _PROTOCOL

    # ---- what belongs to this call -----------------------------------------------------------------------------------

    def carried(self, address: Any) -> Any:
        """Return an address of the program's with this record, so that its look-up is counted here."""
        return _carry(address, self)

    def asked_for(self, address: Any) -> bool:
        """Return whether this call is to look ``address`` up, or to connect to it."""
        host, port = self._address
        if self.transport == "unix":
            return bool(address == host or address == os.fspath(host))
        return isinstance(address, tuple) and address[0] is host and address[1] is port

    def made(self, protocol: Any) -> bool:
        """Return whether ``protocol`` was made for this call and is about to get its transport."""
        found, self._protocol = self._protocol is protocol, None
        return found

    def _of_socket(self, sock: Any) -> None:
        """Note the address of a socket that the program passed, which may be connected."""
        if is_unix(sock):
            self.transport = "unix"
        try:
            self._address = _host_and_port(sock.getpeername())
        except OSError:
            self._address = "", 0

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _dns(self) -> tuple[float | None, float | None]:
        """Return how long the look-ups of names took, in seconds, and when the first began."""
        now_ns = clock.monotonic_ns()
        names = [(began, end or now_ns) for address, how, began, end in self._look_ups if _is_name(address, **how)]
        return (sum(end - began for began, end in names) / 1e9, epoch(names[0][0])) if names else (None, None)

    def _ended(self, exc: BaseException | None) -> None:
        obs = self._loop._obsloop
        if not has_listeners(obs.instruments, "on_connection_set_up"):
            return
        if exc is not None and not self._phase:
            if not isinstance(exc, (OSError, CancelledError)):
                return  # refused for its arguments: nothing was begun
            self._phase = _CONNECT
        ended_ns = clock.monotonic_ns()
        host, port = _host_and_port(self._address)
        site = callbacks.site_of_callback(self._factory)
        if site.name.startswith("asyncio."):
            task = current_task(self._loop)
            site = site if task is None else coroutines.site_of_task(task)
        dns_duration, dns_started_at = self._dns()
        event = ConnectionSetUp(
            loop_name=obs.metrics_of(self._loop).name,
            kind="other",
            **site.fields(),
            duration=(ended_ns - self._started_ns) / 1e9,
            schedule_delay=0.0,
            started_at=epoch(self._started_ns),
            transport=self.transport,
            address=host,
            port=port or next((p for a in self._attempts if (p := _host_and_port(a.address)[1])), 0),
            dns_duration=dns_duration,
            dns_started_at=dns_started_at,
            attempts=tuple(attempt.shown() for attempt in self._attempts),
            tls_duration=None if self._tls_ns is None else self._tls_ns / 1e9,
            tls_started_at=None if self._tls_ns is None else epoch(self._tls_started_ns),
            error_type="" if exc is None else self._error_type or _name_of(exc),
            phase="" if exc is None else self._phase,
            context=self._context,
        )
        emit(obs.instruments, "on_connection_set_up", event)


def reported(loop: Any) -> bool:
    """Return whether an instrument wants to know of connections that begin now. If not, no ``Setup`` is needed."""
    return has_listeners(loop._obsloop.instruments, "on_connection_set_up")


def datagram(loop: Any, factory: Any, local_addr: Any, remote_addr: Any, kwargs: dict[str, Any]) -> Setup:
    """Return the ``Setup`` of a call of ``create_datagram_endpoint``."""
    address = remote_addr or local_addr
    host, port = address if class_of(address) is tuple and len(address) == 2 else (address, None)
    return Setup(loop, "udp", factory, host, port, kwargs)


def resolve(loop: Any, stock: Callable[..., Any], address: Any, kwargs: dict[str, Any]) -> Any:
    """Return a coroutine that looks up as ``loop._ensure_resolved`` does, by ``stock``. Note whose look-up it is."""
    record = address.record if type(address) is _Carrier else None
    setup = None if record is not None else _take(loop, address)
    asker = record or setup
    return stock(address, **kwargs) if asker is None else _resolve(stock, address, kwargs, asker, setup)


async def _resolve(stock: Callable[..., Any], address: Any, kwargs: dict[str, Any], asker: Any, setup: Any) -> Any:
    asker.look_up(address, kwargs)
    infos = await stock(address, **kwargs)
    asker.looked_up()
    if setup is None or type(infos) is not list:
        return infos
    return [(*info[:4], _carry(info[4], setup)) if len(info) == 5 else info for info in infos]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


async def connect(loop: Any, stock: Callable[..., Any], sock: Any, address: Any) -> Any:
    """Connect as ``loop.sock_connect`` does: call asyncio's ``stock``, and time it for stream sockets."""
    if not is_stream(sock):
        return await stock(sock, address)
    if type(address) is _Carrier:
        setup, address = address.record, tuple(address)  # the attempt must not refer to the record that holds it
    else:
        setup = _take(loop, address)
        if setup is None and family_of(sock) == socket.AF_INET and _is_ipv4(address):
            return await _connect_at_once(loop, stock, sock, address)
    attempt = _Attempting(address)
    if setup is not None:
        setup.connects(attempt)
    try:
        result = await stock(sock, _carry(address, attempt))
    except (Exception, CancelledError) as exc:
        guarded(_attempted, loop, attempt, sock, exc)
        raise
    guarded(_attempted, loop, attempt, sock, None)
    return result


async def _connect_at_once(loop: Any, stock: Callable[..., Any], sock: Any, address: Any) -> Any:
    """Connect to an address that asyncio need not look up, for a call of which no instrument wants to know."""
    started_ns = clock.monotonic_ns()
    try:
        result = await stock(sock, address)
    except (OSError, CancelledError) as exc:  # any other error: asyncio refused the socket, and nothing began
        guarded(_count_attempt, loop, clock.monotonic_ns() - started_ns, "ipv4", exc)
        raise
    guarded(_count_attempt, loop, clock.monotonic_ns() - started_ns, "ipv4", None)
    return result


def _is_ipv4(address: Any) -> bool:
    """Return whether this is a pair of an IPv4 address and a port, so that asyncio does not look it up."""
    if type(address) is not tuple or len(address) != 2 or type(address[0]) is not str or type(address[1]) is not int:  # pyright: ignore[reportUnknownArgumentType]
        return False
    try:
        socket.inet_pton(socket.AF_INET, address[0])
    except (OSError, ValueError):
        return False
    return True


def handed_over(loop: Any, protocol: Any) -> Setup | None:
    """Return the connection for which ``protocol`` was just made; None if this side did not ask for one."""
    obs = loop._obsloop
    setup: Setup | None = obs.setup
    if setup is None or not setup.made(protocol):
        return None
    obs.setup = None
    return setup


def _take(loop: Any, address: Any) -> Setup | None:
    """Return the connection whose first step this is, or None."""
    obs = loop._obsloop
    setup: Setup | None = obs.setup
    if setup is None or not setup.asked_for(address):
        return None
    obs.setup = None
    return setup


def _attempted(loop: Any, attempt: _Attempting, sock: Any, exc: BaseException | None) -> None:
    attempt.duration_ns = clock.monotonic_ns() - attempt.started_ns
    attempt.error_type = "" if exc is None else _name_of(exc)
    if attempt.looking_up or not (exc is None or isinstance(exc, (OSError, CancelledError))):
        return  # it did not begin to connect; or asyncio refused the socket or the address
    _count_attempt(loop, attempt.duration_ns, _NETWORK_TYPES.get(family_of(sock), "other"), exc)


def _count_attempt(loop: Any, duration_ns: int, network_type: str, exc: BaseException | None) -> None:
    labelled = loop._obsloop.metrics_of(loop).labelled
    labelled.time("asyncio.connect.duration", duration_ns, network_type, "" if exc is None else _name_of(exc))


def _is_name(address: Any, *, family: int = 0, type: int = 0, proto: int = 0, **_: Any) -> bool:
    """Return whether asyncio will ask the resolver."""
    try:
        host, port, *rest = address
        return private_base_events._ipaddr_info(host, port, family, type, proto, *rest) is None
    except Exception:
        return False  # asyncio will report what is wrong with it


def _name_of(exc: BaseException) -> str:
    return look_up_error_name(exc) if isinstance(exc, socket.gaierror) else error_name(exc)


def _host_and_port(address: Any) -> tuple[str, int]:
    """Return host and port as events show them; a Unix socket's path has port 0."""
    port = 0
    if isinstance(address, tuple):
        address, port = address[:2]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(address, (bytes, os.PathLike)):
        address = os.fsdecode(address)  # pyright: ignore[reportUnknownArgumentType]
    text = "" if address is None else str(address)  # pyright: ignore[reportUnknownArgumentType]
    text = f"@{text[1:]}" if text.startswith("\0") else text
    return clean(text), port if isinstance(port, int) else 0
