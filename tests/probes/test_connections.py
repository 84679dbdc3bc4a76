"""Connections that this side asks for: each phase's time, each attempt, and each failure once and in its phase."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import socket
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import obsloop
from obsloop.introspect.error_names import error_name
from obsloop.probes.network import connections
from obsloop.testing import Recorder
from tests.support import LIMIT

CONNECT = "asyncio.connect.duration"
CANCELLED = "asyncio.exceptions.CancelledError"


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


def counts(loop, signal=CONNECT):
    """How many attempts of each network type ended how."""
    return {labels: histogram.count for labels, histogram in loop.snapshot()[signal].items() if histogram.count}


def setups(recorder):
    """The connections that were told of."""
    return [event for event in recorder.events if isinstance(event, obsloop.events.ConnectionSetUp)]


def infos(*addresses):
    """What a resolver answers."""
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]


@pytest.fixture
def resolver(monkeypatch):
    """A resolver whose answer, and the time it takes for it, the test says; it keeps who was asked for."""

    class Resolver:
        def __init__(self):
            self.answer, self.takes, self.asked = [], 0.0, []

        def __call__(self, host, port, *args, **kwargs):
            self.asked.append(host)
            time.sleep(self.takes)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer(host, port) if callable(self.answer) else self.answer

    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


@pytest.fixture
def server(loop):
    """The address of a server that says nothing and closes when its client does."""
    serving = run(loop, asyncio.start_server(drain, "127.0.0.1", 0))
    yield serving.sockets[0].getsockname()
    serving.close()
    run(loop, serving.wait_closed())
    run(loop, until_all_is_closed(loop))


async def until_all_is_closed(loop):
    """Both ends of all connections know that they are over."""
    while sum(loop.snapshot()["asyncio.transport.active"].values()):
        await asyncio.sleep(0.001)


async def drain(reader, writer):
    await reader.read()
    writer.close()


async def connect_and_close(loop, *args, factory=asyncio.Protocol, **kwargs):
    """Open a connection, close it, and let both sides know."""
    transport, protocol = await loop.create_connection(factory, *args, **kwargs)
    transport.close()
    await asyncio.sleep(0)
    return protocol


def test_a_resolver_that_takes_200_ms(loop, server, resolver):
    """The look-up, the attempt and the whole are found in the event, the attempt alone in the figure."""
    resolver.answer, resolver.takes = infos(server), 0.2

    class Client(asyncio.Protocol):
        pass

    began = time.time()
    with Recorder() as events:
        run(loop, connect_and_close(loop, "example.org", server[1], factory=Client))
    took = time.time() - began
    assert counts(loop) == {("ipv4", ""): 1}
    assert loop.snapshot().histogram(CONNECT, "ipv4", "").sum < 0.2
    (event,) = setups(events)
    assert (event.transport, event.address, event.port) == ("tcp", "example.org", server[1])
    assert (event.error_type, event.phase, event.tls_duration) == ("", "", None)
    assert 0.2 <= event.dns_duration <= event.duration <= took + 0.1
    (attempt,) = event.attempts
    assert (attempt.address, attempt.port, attempt.error_type) == (*server, "")
    assert attempt.duration == pytest.approx(loop.snapshot().histogram(CONNECT, "ipv4", "").sum)
    assert event.name.endswith("test_a_resolver_that_takes_200_ms.<locals>.Client")
    assert event.started_at == pytest.approx(began, abs=5)


def test_an_address_needs_no_resolver(loop, server, resolver):
    """There is no look-up, and no time of one."""
    with Recorder() as events:
        run(loop, connect_and_close(loop, *server))
    assert setups(events)[0].dns_duration is None
    assert resolver.asked == []


def test_streams_name_who_asked(loop, server):
    """The factory is asyncio's own there; the task's coroutine says more."""

    async def client():
        _, writer = await asyncio.open_connection(*server)
        writer.close()
        await writer.wait_closed()

    async def main():
        await loop.create_task(client(), name="a client")

    with Recorder() as events:
        run(loop, main())
    (event,) = setups(events)
    assert event.name.endswith("test_streams_name_who_asked.<locals>.client")
    assert (event.task_name, event.filename) == ("a client", __file__)


def test_refused(loop, nobody):
    """One attempt, one event, asyncio's own error."""
    with Recorder() as events, pytest.raises(ConnectionRefusedError, match="Connect call failed"):
        run(loop, connect_and_close(loop, *nobody))
    assert counts(loop) == {("ipv4", "ConnectionRefusedError"): 1}
    (event,) = setups(events)
    assert (event.error_type, event.phase) == ("ConnectionRefusedError", "connect")
    assert [attempt.error_type for attempt in event.attempts] == ["ConnectionRefusedError"]


@pytest.mark.parametrize("delay", [None, 0.05])
def test_two_addresses_refuse(loop, nobody, resolver, delay):
    """Two attempts; what is raised is what the stock loop raises, type, arguments and all."""
    other = "127.0.0.2", nobody[1]
    resolver.answer = infos(nobody, other)
    options = {} if sys.version_info < (3, 12) else {"all_errors": True}

    def raised(a_loop, **kwargs):
        with pytest.raises((OSError, ExceptionGroup)) as caught:
            run(a_loop, connect_and_close(a_loop, "example.org", 80, happy_eyeballs_delay=delay, **kwargs))
        exc = caught.value
        parts = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
        return type(exc), str(exc), exc.args[:1], [(type(part), part.args) for part in parts]

    stock = asyncio.SelectorEventLoop()
    try:
        with Recorder() as events:
            assert raised(loop) == raised(stock)
            assert raised(loop, **options) == raised(stock, **options)
    finally:
        run(stock, stock.shutdown_default_executor())
        stock.close()
    assert counts(loop) == {("ipv4", "ConnectionRefusedError"): 4}
    for event in setups(events):
        assert [attempt.address for attempt in event.attempts] == ["127.0.0.1", "127.0.0.2"]
        assert event.phase == "connect"


def test_happy_eyeballs_with_an_address_that_never_answers(loop, full, server, resolver):
    """The second attempt begins after 100 ms and wins; the first one is given up, and both are counted."""
    resolver.answer = infos(full.getsockname(), server)
    with Recorder() as events:
        run(loop, connect_and_close(loop, "example.org", 80, happy_eyeballs_delay=0.1))
    assert counts(loop) == {("ipv4", ""): 1, ("ipv4", CANCELLED): 1}
    assert loop.snapshot().histogram(CONNECT, "ipv4", CANCELLED).sum >= 0.095
    (event,) = setups(events)
    assert (event.error_type, event.phase) == ("", "")
    assert [(a.port, a.error_type) for a in event.attempts] == [(full.getsockname()[1], CANCELLED), (server[1], "")]
    assert event.attempts[0].duration >= 0.095 > event.attempts[1].duration


def test_a_race_that_is_given_up(loop, full, resolver):
    """Cancelled with two attempts on their way: both are in the event and in the figure."""
    resolver.answer = infos(full.getsockname(), full.getsockname())

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connect_and_close(loop, "example.org", 80, happy_eyeballs_delay=0.05)
        await asyncio.sleep(0.01)

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {("ipv4", CANCELLED): 2}
    (event,) = setups(events)
    assert (event.error_type, event.phase) == (CANCELLED, "connect")
    assert [attempt.error_type for attempt in event.attempts] == [CANCELLED] * 2
    first, second = event.attempts
    assert first.duration - second.duration >= 0.045, "the second began 50 ms after the first, and they ended together"


def test_a_listener_that_accepts_late(loop, full):
    """Its queue is full for 300 ms: the attempt lasts for as long at least."""

    def make_room():
        time.sleep(0.3)
        full.accept()[0].close()

    async def main():
        connecting = asyncio.create_task(connect_and_close(loop, *full.getsockname()))
        await asyncio.sleep(0)  # the attempt has begun
        thread.start()
        await connecting

    thread = threading.Thread(target=make_room)
    with Recorder() as events:
        run(loop, main())
    thread.join()
    assert counts(loop) == {("ipv4", ""): 1}
    assert loop.snapshot().histogram(CONNECT, "ipv4", "").sum >= 0.3
    assert setups(events)[0].attempts[0].duration >= 0.3


def test_an_unknown_name(loop, resolver):
    """It fails before there is an attempt, under the resolver's own name for it."""
    resolver.answer = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with Recorder() as events, pytest.raises(socket.gaierror):
        run(loop, connect_and_close(loop, "nobody.invalid", 80))
    assert counts(loop) == {}
    (event,) = setups(events)
    assert (event.error_type, event.phase, event.attempts) == ("EAI_NONAME", "dns", ())
    assert event.dns_duration > 0
    assert counts(loop, "dns.lookup.duration") == {("EAI_NONAME",): 1}


def test_cancelled_while_the_name_is_looked_up(loop, resolver, monkeypatch):
    """Once, in that phase; nothing was connected."""
    held = threading.Event()
    resolver.answer = lambda host, port: held.wait(LIMIT) and []
    loop.set_default_executor(ThreadPoolExecutor(1))

    async def main():
        task = loop.create_task(loop.create_connection(asyncio.Protocol, "example.org", 80))
        while not resolver.asked:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        held.set()
        assert task.cancelled()

    with Recorder() as events:
        run(loop, main())
    (event,) = setups(events)
    assert (event.error_type, event.phase, event.attempts) == (CANCELLED, "dns", ())
    assert counts(loop) == {}


def test_cancelled_while_it_connects(loop, full):
    """Once in the figure, once in the event."""

    async def main():
        task = loop.create_task(loop.create_connection(asyncio.Protocol, *full.getsockname()))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {("ipv4", CANCELLED): 1}
    assert loop.snapshot().histogram(CONNECT, "ipv4", CANCELLED).sum >= 0.09
    (event,) = setups(events)
    assert (event.error_type, event.phase) == (CANCELLED, "connect")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_factory_that_raises(loop, server):
    """It was connected all the same; the protocol is what failed."""

    def factory():
        raise LookupError("no protocol")

    with Recorder() as events, pytest.raises(LookupError):
        run(loop, connect_and_close(loop, *server, factory=factory))
    gc.collect()  # asyncio leaves the socket to the collector, before 3.14
    assert counts(loop) == {("ipv4", ""): 1}
    (event,) = setups(events)
    assert (event.error_type, event.phase) == ("LookupError", "protocol")


def test_arguments_that_are_refused(loop):
    """What asyncio refuses is no connection: it tells the program, and we tell nobody."""

    async def main():
        for kwargs in ({"server_hostname": "x"}, {"sock": object()}, {"host": "h", "port": 1, "no_such": 1}, {}):
            with pytest.raises((ValueError, TypeError, AttributeError)):
                await loop.create_connection(asyncio.Protocol, **kwargs)
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(TypeError):
                await loop.sock_connect(sock, 42)

    with Recorder() as events:
        run(loop, main())
    assert setups(events) == []
    assert counts(loop) == {}
    assert loop._obsloop.setup is None


def test_plain_sockets(loop, server, nobody, resolver, tmp_path):
    """``sock_connect`` is where attempts are counted: libraries with happy eyeballs of their own go by it."""
    resolver.answer, resolver.takes = infos(server), 0.2

    async def attempt(address, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        with socket.socket(family, kind) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)

    async def main():
        await attempt(server)
        await attempt(("example.org", 80))  # a name: the look-up is no part of the attempt
        await attempt(list(server))
        await attempt(server, kind=socket.SOCK_DGRAM)  # nothing is connected
        with pytest.raises(ConnectionRefusedError):
            await attempt(nobody)
        with pytest.raises(FileNotFoundError):
            await attempt(str(tmp_path / "none"), socket.AF_UNIX)
        resolver.answer = socket.gaierror(socket.EAI_AGAIN, "not now")
        with pytest.raises(socket.gaierror):
            await attempt(("example.org", 80))  # no attempt was made

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {
        ("ipv4", ""): 3,
        ("ipv4", "ConnectionRefusedError"): 1,
        ("unix", "FileNotFoundError"): 1,
    }
    assert loop.snapshot().histogram(CONNECT, "ipv4", "").sum < 0.2
    assert setups(events) == []


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6(loop):
    """By its own network type."""

    async def main():
        serving = await asyncio.start_server(drain, "::1", 0)
        await connect_and_close(loop, "::1", serving.sockets[0].getsockname()[1])
        await until_all_is_closed(loop)
        serving.close()
        await serving.wait_closed()

    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    run(loop, main())
    assert counts(loop) == {("ipv6", ""): 1}


def test_unix_sockets(loop, tmp_path):
    """The path is the address; one that is not there fails to connect."""
    path = tmp_path / "a.sock"

    async def main():
        serving = await asyncio.start_unix_server(drain, path)
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
        transport.close()
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(asyncio.Protocol, os.fspath(tmp_path / "none"))
        await asyncio.sleep(0.01)
        serving.close()
        await serving.wait_closed()
        await until_all_is_closed(loop)

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {("unix", ""): 1, ("unix", "FileNotFoundError"): 1}
    good, bad = setups(events)
    assert (good.transport, good.address, good.port, len(good.attempts)) == ("unix", str(path), 0, 1)
    assert (bad.address, bad.phase, bad.error_type) == (str(tmp_path / "none"), "connect", "FileNotFoundError")


def test_a_socket_of_the_programs(loop, server):
    """Connected before: no look-up and no attempt, and the address is the peer's."""

    async def main():
        sock = socket.create_connection(server)
        await connect_and_close(loop, sock=sock)

    with Recorder() as events:
        run(loop, main())
    (event,) = setups(events)
    assert (event.address, event.port, event.attempts, event.dns_duration) == (*server, (), None)
    assert counts(loop) == {}


def test_datagram_endpoints(loop, server, resolver):
    """Their look-ups, of either address, and no attempt; a resolver that fails is that phase."""
    resolver.takes = 0.1
    resolver.answer = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 0))]

    async def main():
        for addresses in ({"local_addr": ("here", 0)}, {"local_addr": ("127.0.0.1", 0), "remote_addr": server}):
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **addresses)
            transport.close()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=socket.AF_INET)
        transport.close()
        resolver.answer = socket.gaierror(socket.EAI_NONAME, "no")
        with pytest.raises(socket.gaierror):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("there", 53))
        with pytest.raises(TypeError, match="2-tuple"):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr="there")

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {}
    local, remote, neither, failed = setups(events)
    assert {event.transport for event in setups(events)} == {"udp"}
    assert (local.address, local.dns_duration >= 0.1) == ("here", True)
    assert (remote.address, remote.port, remote.dns_duration) == (*server, None)
    assert (neither.address, neither.port) == ("", 0)
    assert (failed.address, failed.port, failed.phase, failed.error_type) == ("there", 53, "dns", "EAI_NONAME")


def test_local_addresses_and_interleaving(loop, server, resolver):
    """What asyncio can do with addresses still works; a local name counts as a look-up of this connection."""
    resolver.answer = lambda host, port: infos(server if host == "there" else ("127.0.0.1", 0))
    resolver.takes = 0.1
    with Recorder() as events:
        run(loop, connect_and_close(loop, "there", 80, local_addr=("here", 0), interleave=1))
    assert resolver.asked == ["there", "here"]
    (event,) = setups(events)
    assert event.dns_duration >= 0.2
    assert [attempt.port for attempt in event.attempts] == [server[1]]


def test_many_at_once_are_not_mixed_up(loop, server, resolver, nobody):
    """Sixty connections that race for addresses of their own: each event has its own attempts."""

    def answer(host, port):
        return infos((f"127.0.1.{host[1:]}", nobody[1]), server)

    resolver.answer = answer

    async def one(n):
        await connect_and_close(loop, f"h{n}", 80, happy_eyeballs_delay=0.3 if n % 2 else None)

    async def main():
        await asyncio.gather(*(one(n) for n in range(1, 61)))

    with Recorder() as events:
        run(loop, main())
    assert len(setups(events)) == 60
    for event in setups(events):
        refused, fine = event.attempts
        assert (refused.address, refused.error_type) == (f"127.0.1.{event.address[1:]}", "ConnectionRefusedError")
        assert (fine.port, fine.error_type) == (server[1], "")


def test_a_connection_from_within_another_and_nothing_is_left(loop, server, resolver):
    """A protocol opens the next one as it is made: nothing is mixed up, kept, or put into the program's contexts."""
    resolver.answer = lambda host, port: infos(server)
    seen = []

    class Chained(asyncio.Protocol):
        def __init__(self, left):
            self.left = left

        def connection_made(self, transport):
            seen.append(set(contextvars.copy_context()))
            self.transport = transport
            if self.left:
                tasks.append(loop.create_task(open_one(self.left - 1)))
            transport.close()

    async def open_one(left):
        # With eager tasks asyncio's own race fails before 3.14 (gh-124309).
        delay = 0.1 if loop.get_task_factory() is None or sys.version_info >= (3, 14) else None
        await loop.create_connection(lambda: Chained(left), f"host{left}", 80, happy_eyeballs_delay=delay)

    async def main():
        await open_one(3)
        while len(seen) < 4:
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)

    for factory in [None, *([asyncio.eager_task_factory] if hasattr(asyncio, "eager_task_factory") else [])]:
        loop.set_task_factory(factory)
        tasks = []
        seen.clear()
        before = set(contextvars.copy_context())
        with Recorder() as events:
            run(loop, main())
        assert sorted(event.address for event in setups(events)) == ["host0", "host1", "host2", "host3"]
        assert [len(event.attempts) for event in setups(events)] == [1, 1, 1, 1]
        assert all(context <= before for context in seen)
        del events
        tasks.clear()
        gc.collect()
        kept = (connections.Setup, connections._Carrier, connections._Attempting)
        assert [thing for thing in gc.get_objects() if type(thing) in kept] == []
        assert loop._obsloop.setup is None
    loop.set_task_factory(None)


def test_failures_make_no_cycles(loop, nobody):
    """What is raised is freed when it is let go of, without the collector."""

    class Refused(asyncio.Protocol):
        pass

    async def main():
        factory = lambda: Refused()  # noqa: E731, PLW0108 - something to refer to weakly
        gone.append(weakref.ref(factory))
        with contextlib.suppress(ConnectionRefusedError):
            await loop.create_connection(factory, *nobody)

    gone = []
    gc.collect()
    gc.disable()
    try:
        run(loop, main())
        assert gone[0]() is None
    finally:
        gc.enable()


def test_an_instrument_that_raises(loop, server):
    """The connection stands; the hook is disabled."""

    class Broken:
        def on_connection_set_up(self, event):
            raise RuntimeError("broken")

    loop.add_instrument(Broken())
    run(loop, connect_and_close(loop, *server))
    run(loop, connect_and_close(loop, *server))
    assert obsloop.process_snapshot().value("obsloop.instrument.disabled", "on_connection_set_up") >= 1
    assert counts(loop) == {("ipv4", ""): 2}


def test_a_loop_that_is_observed_while_it_runs(server_tls):
    """From then on its connections are measured."""

    async def main():
        loop = obsloop.instrument(settings=obsloop.Settings(name="turned"))
        serving = await asyncio.start_server(drain, "127.0.0.1", 0)
        await connect_and_close(loop, *serving.sockets[0].getsockname())
        await until_all_is_closed(loop)
        serving.close()
        await serving.wait_closed()
        return loop.snapshot().histogram(CONNECT, "ipv4", "").count

    runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
    with runner:
        assert runner.run(main()) == 1


def test_a_subclass_with_a_create_connection_of_its_own(server):
    """It comes first, and ours is behind it."""

    class Mine(obsloop.Loop):
        async def create_connection(self, *args, **kwargs):
            await asyncio.sleep(0)
            transport, protocol = await super().create_connection(*args, **kwargs)
            return transport, (protocol, "mine")

    mine = Mine(settings=obsloop.Settings(name="mine"))
    with Recorder() as events:
        assert run(mine, connect_and_close(mine, *server))[1] == "mine"
    mine.close()
    assert len(setups(events)) == 1


def test_the_systems_name_where_the_class_says_nothing():
    """`OSError` is no answer; the others are classes that say what happened."""
    assert error_name(OSError(errno.ENETUNREACH, "Network is unreachable")) == "ENETUNREACH"
    assert error_name(OSError("Multiple exceptions")) == "OSError"
    assert error_name(ConnectionRefusedError(errno.ECONNREFUSED, "no")) == "ConnectionRefusedError"


def test_a_connection_that_began_before_anyone_listened(loop):
    """It has no record, and so no event, but its attempt is counted; the next one has an event."""

    async def main() -> tuple[int, int]:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        connecting = asyncio.ensure_future(asyncio.open_connection(*address))
        await asyncio.sleep(0)
        with Recorder() as events:
            _, first = await connecting
            before = len(setups(events))
            _, second = await asyncio.open_connection(*address)
            after = len(setups(events))
        first.close()
        second.close()
        server.close()
        await asyncio.sleep(0)
        return before, after

    assert run(loop, main()) == (0, 1)
    assert counts(loop) == {("ipv4", ""): 2}
