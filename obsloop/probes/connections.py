"""Connections on their way: each attempt to connect a socket, and the phases of each ``create_connection``.

An attempt is counted where asyncio connects a socket, so that those of happy eyeballs, of ``sock_connect`` and of
libraries that choose among addresses by themselves are all counted, each once. The phases are put together only where
somebody listens to ``on_connection_set_up``: the coroutine of asyncio's runs as it is, and what it calls of the loop in
between tells the ``Setup`` of its task how far it has come.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from obsloop import _clock, _sites
from obsloop._events import Attempt, ConnectionSetUp
from obsloop._instruments import emit, heard as _heard
from obsloop._peek import class_of, clean
from obsloop.probes import handshakes
from obsloop.probes.errors import type_name
from obsloop.watch.episodes import epoch
from obsloop.watch.guarded import guarded

_T = TypeVar("_T")

_TYPES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
if hasattr(socket, "AF_UNIX"):
    _TYPES[socket.AF_UNIX] = "unix"


class Setup:
    """One connection on its way: what is known of it so far."""

    __slots__ = ("address", "attempts", "began_ns", "dns_ns", "handshake", "infos", "network", "phase", "port")

    def __init__(self, network: str, address: Any, port: Any) -> None:
        self.network = network
        self.address = clean(address if isinstance(address, str) else repr(address)) if address is not None else ""
        self.port = port if isinstance(port, int) else 0
        self.began_ns = _clock.monotonic_ns()
        self.dns_ns: int | None = None
        self.infos: Any = ()
        """The addresses that it found: by these attempts in other tasks are known as its own."""
        self.attempts: list[Attempt] = []
        self.handshake: Any = None
        self.phase = ""


class Setups:
    """Those of one loop that are on their way: by their task, and by the addresses that they have found."""

    __slots__ = ("by_address", "by_task")

    def __init__(self) -> None:
        self.by_task: dict[Any, Setup] = {}
        self.by_address: dict[int, Setup] = {}

    def current(self) -> Setup | None:
        """That of the task that runs."""
        return self.by_task.get(asyncio.current_task()) if self.by_task else None


def address_of(address: Any) -> tuple[Any, Any]:
    """Host and port of an address as the program gives it; of a path, the path."""
    return (address[0], address[1]) if isinstance(address, tuple) and len(address) > 1 else (address, 0)


def heard(loop: Any) -> bool:
    """Whether anybody wants to be told."""
    return _heard(loop._obsloop.instruments, "on_connection_set_up")


async def told(loop: Any, coro: Awaitable[_T], setup: Setup, factory: Any) -> _T:
    """Await ``coro``, asyncio's own, and tell how it went."""
    setups = loop._obsloop.setups
    task = asyncio.current_task()
    outer = setups.by_task.get(task)
    setups.by_task[task] = setup
    try:
        result = await coro
    except BaseException as exc:
        guarded(_tell, loop, setup, factory, exc)
        raise
    finally:
        if outer is None:
            setups.by_task.pop(task, None)
        else:
            setups.by_task[task] = outer
        for info in setup.infos:
            setups.by_address.pop(id(info), None)
    guarded(_tell, loop, setup, factory, None)
    return result


async def resolving(loop: Any, setup: Setup, coro: Awaitable[_T], host: Any) -> _T:
    """A phase: the addresses of ``host``. An address needs no look-up, and takes no time."""
    setup.phase = "dns"
    began_ns = _clock.monotonic_ns()
    try:
        infos: Any = await coro
    finally:
        if not _is_address(host):
            setup.dns_ns = (setup.dns_ns or 0) + _clock.monotonic_ns() - began_ns
    setup.infos = (*setup.infos, *infos)
    for info in infos:
        loop._obsloop.setups.by_address[id(info)] = setup
    return cast(_T, infos)


async def attempting(setup: Setup, coro: Awaitable[_T], address: Any) -> _T:
    """A phase: one address is tried."""
    setup.phase = "connect"
    began_ns = _clock.monotonic_ns()
    try:
        result = await coro
    except BaseException as exc:
        guarded(_attempted, setup, address, began_ns, type_name(class_of(exc)))
        raise
    guarded(_attempted, setup, address, began_ns, "")
    return result


def connecting(loop: Any, future: Any, sock: Any, began_ns: int) -> None:
    """The kernel was asked to connect ``sock``; ``future`` is done when it has."""
    network_type = _TYPES.get(sock.family)
    if network_type is None or sock.type != socket.SOCK_STREAM:
        return  # a datagram socket is only told an address

    def ended(future: Any) -> None:
        guarded(_count, loop, future, network_type, began_ns)

    if future.done():
        ended(future)
    else:
        future.add_done_callback(ended)


def _count(loop: Any, future: Any, network_type: str, began_ns: int) -> None:
    exc = asyncio.CancelledError() if future.cancelled() else _peek(future)
    loop._obsloop.ledger_of(loop).rare.time(
        "asyncio.connect.duration",
        _clock.monotonic_ns() - began_ns,
        network_type,
        "" if exc is None else type_name(class_of(exc)),
    )


def _peek(future: Any) -> Any:
    """Its exception, without saying that somebody has asked for it."""
    return getattr(future, "_exception", None)


def _is_address(host: Any) -> bool:
    if not isinstance(host, str):
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _attempted(setup: Setup, address: Any, began_ns: int, error_type: str) -> None:
    host, port = address_of(address)
    took_ns = _clock.monotonic_ns() - began_ns
    setup.attempts.append(Attempt(clean(str(host)), port if isinstance(port, int) else 0, took_ns / 1e9, error_type))


def _tell(loop: Any, setup: Setup, factory: Any, exc: BaseException | None) -> None:
    now_ns = _clock.monotonic_ns()
    obs = loop._obsloop
    site = _sites.site_of_callback(factory)
    event = ConnectionSetUp(
        loop_name=obs.ledger_of(loop).name,
        kind="task_step",
        name=site.name,
        filename=site.filename,
        lineno=site.lineno,
        duration=(now_ns - setup.began_ns) / 1e9,
        schedule_delay=0.0,
        started_at=epoch(setup.began_ns),
        transport=setup.network,
        address=setup.address,
        port=setup.port,
        dns_duration=None if setup.dns_ns is None else setup.dns_ns / 1e9,
        attempts=tuple(setup.attempts),
        tls_duration=None if setup.handshake is None else handshakes.took_ns(setup.handshake) / 1e9,
        phase="" if exc is None else setup.phase or "arguments",
        error_type="" if exc is None else type_name(class_of(exc)),
    )
    emit(obs.instruments, "on_connection_set_up", event)
