"""Transports: what went through them, by the count of peers that are not ours, and why they were closed."""

import asyncio
import contextlib
import gc
import os
import socket
import tempfile
import threading
import time
import warnings

import pytest

import obsloop
from obsloop.events import TransportClosed
from obsloop.testing import Recorder
from tests.probes import peers
from tests.support import LIMIT, forget_everything

OPENED, CLOSED, ACTIVE = "asyncio.transport.opened", "asyncio.transport.closed", "asyncio.transport.active"
IO, BUFFERED = "asyncio.transport.io", "asyncio.transport.write_buffer.usage"
PAUSED, EPISODES = "asyncio.transport.write_paused.time", "asyncio.transport.write_paused.episodes"
MEGABYTE = b"m" * (1 << 20)


@pytest.fixture(params=["made", "instrumented"])
def loop(request):
    forget_everything()
    settings = obsloop.Settings(name="main")
    if request.param == "made":
        made = obsloop.Loop(settings=settings)
    else:
        made = obsloop.instrument(asyncio.SelectorEventLoop(), settings)
    yield made
    made.close()


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


def figures(loop, signal):
    """The series of ``signal`` that are not 0."""
    return {labels: value for labels, value in loop.snapshot()[signal].items() if value}


def assert_passed(loop, network, peer):
    """The figures say what the peer counted, in both directions."""
    snapshot = loop.snapshot()
    assert snapshot.value(IO, "read", network) == peer.written_bytes
    assert snapshot.value(IO, "write", network) == peer.read_bytes


class Lost(asyncio.Protocol):
    """Says when its connection is lost."""

    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
        self.received = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += len(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class BufferedLost(Lost, asyncio.BufferedProtocol):
    def __init__(self):
        super().__init__()
        self.room = bytearray(1000)

    def get_buffer(self, sizehint):
        return self.room

    def buffer_updated(self, nbytes):
        self.received += nbytes


def reads_late(peer, sock):
    """Only when it is told to."""
    peer.go.wait(LIMIT)
    peer.drain(sock)


async def accepted(all_peers):
    while not all_peers:
        await asyncio.sleep(0.001)
    return all_peers[0]


def at_once(transport, peer_data):
    transport.write(peer_data)


def in_pieces(transport, data):
    for i in range(0, len(data), 999):
        transport.write(data[i : i + 999])


def as_lines(transport, data):
    transport.writelines([data[i : i + 4096] for i in range(0, len(data), 4096)] + [b""])


def as_a_view(transport, data):
    transport.write(memoryview(data)[: len(data) // 2])
    transport.write(bytearray(data[len(data) // 2 :]))


@pytest.mark.parametrize("how", [at_once, in_pieces, as_lines, as_a_view])
@pytest.mark.parametrize("size", [1, 100, 70_000, 5_000_000])
@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_bytes_are_what_a_peer_counted(loop, network, size, how, tmp_path):
    """Both ways at once, whatever goes out directly or waits in the buffer, and however it is written."""
    data = os.urandom(size)

    def echo(peer, sock):
        while piece := peer.recv(sock, 10_000):
            peer.send(sock, piece)

    async def main(server):
        if network == "tcp":
            transport, protocol = await loop.create_connection(Lost, *server.getsockname())
        else:
            transport, protocol = await loop.create_unix_connection(Lost, server.getsockname())
        how(transport, data)
        transport.write_eof()
        await protocol.lost
        assert protocol.received == size

    address = "127.0.0.1" if network == "tcp" else str(tmp_path / "s")
    with peers.listening(echo, address) as (server, all_peers):
        run(loop, main(server))
    assert_passed(loop, network, all_peers[0])
    assert all_peers[0].read_bytes == size
    assert figures(loop, OPENED) == {(network, "client"): 1}
    assert figures(loop, CLOSED) == {(network, "eof"): 1}
    assert figures(loop, ACTIVE) == figures(loop, BUFFERED) == {}


@pytest.mark.parametrize("protocol", [Lost, BufferedLost])
def test_a_server_reads_for_each_kind_of_protocol(loop, protocol):
    """A plain socket writes 3 MB to our server and counts them; the server's end of it is a server."""
    made = []

    async def main():
        server = await loop.create_server(lambda: made.append(protocol()) or made[-1], "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        peer = peers.play(lambda peer, sock: peer.send(sock, MEGABYTE * 3), sock)
        while not made:
            await asyncio.sleep(0.01)
        await made[0].lost
        server.close()
        peers.join(peer)
        return peer

    peer = run(loop, main())
    assert made[0].received == 3 << 20
    assert_passed(loop, "tcp", peer)
    assert figures(loop, OPENED) == {("tcp", "server"): 1}


def test_a_protocol_that_is_changed_in_the_middle(loop):
    """From a plain one to one with a buffer and back: the transport stays one, and every byte is counted."""

    def slowly(peer, sock):
        for _ in range(3):
            peer.send(sock, b"x" * 1234)
            peer.recv(sock)

    async def main(server):
        transport, first = await loop.create_connection(Lost, *server.getsockname())
        protocols = [first, BufferedLost(), Lost()]
        for protocol in protocols:
            transport.set_protocol(protocol)
            while protocol.received < 1234:
                await asyncio.sleep(0.001)
            transport.write(b"ok")
        await protocols[-1].lost

    with peers.listening(slowly) as (server, all_peers):
        run(loop, main(server))
    assert_passed(loop, "tcp", all_peers[0])
    assert figures(loop, OPENED) == {("tcp", "client"): 1}


def test_sockets_that_the_program_made(loop):
    """``sock=`` for a client, and a socket that the program has accepted: that end is a server."""

    async def main(server):
        sock = socket.create_connection(server.getsockname())
        sock.setblocking(False)
        _, client = await loop.create_connection(Lost, sock=sock)
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        _, accepted = await loop.connect_accepted_socket(Lost, ours)
        peer = peers.play(lambda peer, sock: peer.send(sock, b"hello"), theirs)
        await client.lost
        await accepted.lost
        peers.join(peer)

    with peers.listening(lambda peer, sock: peer.send(sock, b"hello")) as (server, _):
        run(loop, main(server))
    assert figures(loop, OPENED) == {("tcp", "client"): 1, ("unix", "server"): 1}
    assert figures(loop, IO) == {("read", "tcp"): 5, ("read", "unix"): 5}


def test_a_file_sent_by_the_kernel(loop):
    """``loop.sendfile`` goes past the transport's buffer; its bytes are counted all the same, and once."""

    async def main(server, file):
        transport, protocol = await loop.create_connection(Lost, *server.getsockname())
        transport.write(b"head")
        assert await loop.sendfile(transport, file) == 3 << 20
        assert await loop.sendfile(transport, file, 10, 20) == 20
        transport.write(b"tail")
        transport.close()
        await protocol.lost

    with tempfile.TemporaryFile() as file, peers.listening(peers.Peer.drain) as (server, all_peers):
        file.write(MEGABYTE * 3)
        file.flush()
        file.seek(0)
        run(loop, main(server, file))
    assert all_peers[0].read_bytes == (3 << 20) + 28
    assert_passed(loop, "tcp", all_peers[0])
    assert figures(loop, CLOSED) == {("tcp", "local"): 1}


def test_a_file_whose_sending_is_cancelled(loop):
    """The peer stops reading in the middle, and the sender gives up: what went out until then is what is counted."""

    async def main(server, all_peers, file):
        transport, protocol = await loop.create_connection(Lost, *server.getsockname())
        task = asyncio.ensure_future(loop.sendfile(transport, file))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        transport.close()
        await protocol.lost
        (await accepted(all_peers)).go.set()

    with tempfile.TemporaryFile() as file, peers.listening(reads_late) as (server, all_peers):
        file.write(MEGABYTE * 30)
        file.seek(0)
        run(loop, main(server, all_peers, file))
    assert 0 < all_peers[0].read_bytes < 30 << 20
    assert_passed(loop, "tcp", all_peers[0])


def test_datagrams(loop):
    """Both ways, with a remote address and without; what could not be sent is not counted."""

    class Echo(asyncio.DatagramProtocol):
        def __init__(self):
            self.errors = []

        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.sendto(data + b"!", addr)

        def error_received(self, exc):
            self.errors.append(exc)

    async def main():
        transport, protocol = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(LIMIT)
            peer.connect(transport.get_extra_info("sockname"))
            for size in (0, 1, 1000):
                peer.send(b"x" * size)
                answer = await loop.run_in_executor(None, peer.recv, 2000)
                assert len(answer) == size + 1
            client, _ = await loop.create_datagram_endpoint(Echo, remote_addr=peer.getsockname())
            client.sendto(b"y" * 50)
            transport.sendto(b"z" * 70_000, peer.getsockname())  # too long for a datagram
            active = figures(loop, ACTIVE)
        assert len(protocol.errors) == 1
        transport.close()
        client.abort()
        await asyncio.sleep(0.01)
        return active

    assert run(loop, main()) == {("udp", "server"): 1, ("udp", "client"): 1}
    assert figures(loop, IO) == {("read", "udp"): 1001, ("write", "udp"): 1004 + 50}
    assert figures(loop, CLOSED) == {("udp", "local"): 1, ("udp", "aborted"): 1}
    assert figures(loop, ACTIVE) == {}


def test_pipes(loop):
    """A megabyte through a pipe into the loop and one out of it; a pipe whose reader went away is reset."""

    async def main():
        inward, theirs = os.pipe()
        transport, reader = await loop.connect_read_pipe(Lost, os.fdopen(inward, "rb"))
        writer = threading.Thread(target=write_all, args=(theirs, MEGABYTE))
        writer.start()
        await reader.lost
        writer.join()

        theirs, outward = os.pipe()
        transport, protocol = await loop.connect_write_pipe(Lost, os.fdopen(outward, "wb"))
        transport.write(MEGABYTE)
        buffered = loop.snapshot().value(BUFFERED)
        assert buffered == transport.get_write_buffer_size() > 0
        got = await loop.run_in_executor(None, read_exactly, theirs, len(MEGABYTE))
        assert got == len(MEGABYTE)
        transport.close()
        await protocol.lost
        os.close(theirs)

        theirs, outward = os.pipe()
        transport, protocol = await loop.connect_write_pipe(Lost, os.fdopen(outward, "wb"))
        transport.write(MEGABYTE)
        left = transport.get_write_buffer_size()
        os.close(theirs)
        await protocol.lost
        return left

    left = run(loop, main())
    assert figures(loop, IO) == {("read", "pipe"): 1 << 20, ("write", "pipe"): (2 << 20) - left}
    assert figures(loop, CLOSED) == {("pipe", "eof"): 1, ("pipe", "local"): 1, ("pipe", "reset"): 1}
    assert figures(loop, BUFFERED) == figures(loop, ACTIVE) == {}


def write_all(fd, data):
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def read_exactly(fd, size):
    got = 0
    while got < size:
        got += len(os.read(fd, 1 << 16))
    return got


# ---- why -------------------------------------------------------------------------------------------------------------


def left_alone(transport):
    """The peer acts."""


def says_something_wrong(transport):
    """The protocol raises at the answer."""
    transport.get_protocol().data_received = lambda data: 1 // 0
    transport.write(b"x")


def answer(peer, sock):
    peer.send(sock, peer.recv(sock))
    peer.drain(sock)


@pytest.mark.parametrize(
    ("reason", "act", "part", "error_type"),
    [
        ("eof", left_alone, lambda peer, sock: peer.send(sock, b"bye"), ""),
        ("local", lambda transport: transport.close(), peers.Peer.drain, ""),
        ("reset", left_alone, lambda peer, sock: peers.reset(sock), "ConnectionResetError"),
        ("error", says_something_wrong, answer, "ZeroDivisionError"),
        ("aborted", lambda transport: transport.abort(), peers.Peer.drain, ""),
    ],
)
def test_why_it_was_closed(loop, reason, act, part, error_type):
    """The figure and the event agree, and the event names the protocol and the peer, and nothing of what was sent."""

    def told(peer, sock):
        peer.go.wait(LIMIT)
        with contextlib.suppress(ConnectionError):
            part(peer, sock)

    async def main(server, all_peers):
        transport, protocol = await loop.create_connection(Lost, *server.getsockname())
        peer = await accepted(all_peers)
        act(transport)
        peer.go.set()
        await protocol.lost

    loop.set_exception_handler(lambda loop, context: None)
    with Recorder() as events, peers.listening(told) as (server, all_peers):
        run(loop, main(server, all_peers))
        port = server.getsockname()[1]
    assert figures(loop, CLOSED) == {("tcp", reason): 1}
    assert figures(loop, ACTIVE) == {}
    (event,) = (event for event in events.events if isinstance(event, TransportClosed))
    assert (event.transport, event.role, event.reason, event.error_type) == ("tcp", "client", reason, error_type)
    assert event.name == f"{__name__}.Lost.connection_lost"
    assert event.detail == f"from 127.0.0.1:{port}"
    assert event.bytes_read == all_peers[0].written_bytes
    assert event.bytes_written == all_peers[0].read_bytes


def test_how_long_it_was_open(loop):
    """A connection that is kept for 200 ms: the event says so, and when it began."""

    async def main(server):
        transport, protocol = await loop.create_connection(Lost, *server.getsockname())
        await asyncio.sleep(0.2)
        transport.close()
        await protocol.lost

    began = time.time()
    with Recorder() as events, peers.listening(peers.Peer.drain) as (server, _):
        run(loop, main(server))
    (event,) = (event for event in events.events if isinstance(event, TransportClosed))
    assert 0.2 <= event.duration <= time.time() - began + 0.1
    assert event.started_at == pytest.approx(began, abs=5)


def test_one_that_is_left_behind(loop):
    """A transport that nobody closed, of a loop that is gone: it is closed by the collector, and counted."""

    async def main(server):
        await loop.create_connection(asyncio.Protocol, *server.getsockname())

    with peers.listening(peers.Peer.drain) as (server, _):
        run(loop, main(server))
        assert figures(loop, ACTIVE) == {("tcp", "client"): 1}
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for kept in list(loop._transports.values()):
                kept._protocol = kept._read_ready_cb = None
            del kept
            gc.collect()
    snapshot = obsloop.snapshots()["main"]
    assert {k: v for k, v in snapshot[CLOSED].items() if v} == {("tcp", "aborted"): 1}
    assert not any(snapshot[ACTIVE].values())


# ---- pauses ----------------------------------------------------------------------------------------------------------


class Pausable(Lost):
    def __init__(self):
        super().__init__()
        self.resumed = asyncio.get_running_loop().create_future()

    def pause_writing(self):
        self.paused_at = time.monotonic()

    def resume_writing(self):
        if not self.resumed.done():
            self.resumed.set_result(time.monotonic())


def test_a_reader_that_stops_reading(loop):
    """For 300 ms: the time shows while it lasts, is what the protocol saw, and what waits is what the buffer holds."""

    async def main(server, all_peers):
        transport, protocol = await loop.create_connection(Pausable, *server.getsockname())
        transport.write(MEGABYTE * 20)
        now = loop.snapshot()
        assert now.value(BUFFERED) == transport.get_write_buffer_size() > 10 << 20
        assert now.value(BUFFERED) + now.value(IO, "write", "tcp") == 20 << 20
        await asyncio.sleep(0.15)
        middle = loop.snapshot().value(PAUSED)
        assert 0.15 <= middle <= time.monotonic() - protocol.paused_at + 0.05
        await asyncio.sleep(0.15)
        (await accepted(all_peers)).go.set()
        await protocol.resumed
        transport.close()
        await protocol.lost
        return protocol.resumed.result() - protocol.paused_at

    with Recorder() as events, peers.listening(reads_late) as (server, all_peers):
        seen = run(loop, main(server, all_peers))
    snapshot = loop.snapshot()
    assert seen >= 0.3
    assert snapshot.value(PAUSED) == pytest.approx(seen, abs=0.05)
    assert snapshot.value(EPISODES) == 1
    assert snapshot.value(BUFFERED) == 0
    assert_passed(loop, "tcp", all_peers[0])
    (event,) = (event for event in events.events if isinstance(event, TransportClosed))
    assert event.paused_duration == pytest.approx(snapshot.value(PAUSED), abs=1e-6)


@pytest.mark.parametrize("end", ["abort", "reset", "loop closed"])
def test_a_pause_that_never_ends(loop, end):
    """What was in the buffer is gone with the connection; the pause ends with it, and the counter stands still."""
    wait = threading.Event()

    def part(peer, sock):
        wait.wait(LIMIT)
        peers.reset(sock)

    async def main(server):
        transport, protocol = await loop.create_connection(Pausable, *server.getsockname())
        transport.write(MEGABYTE * 20)
        await asyncio.sleep(0.1)
        if end == "loop closed":
            return
        if end == "abort":
            transport.abort()
        else:
            wait.set()
        await protocol.lost

    with peers.listening(part) as (server, _), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(loop, main(server))
        if end == "loop closed":
            loop.close()
        first = obsloop.snapshots()["main"]
        time.sleep(0.02)
        second = obsloop.snapshots()["main"]
        wait.set()
        gc.collect()
    assert first.value(PAUSED) == second.value(PAUSED) >= 0.1
    assert first.value(BUFFERED) == 0
    assert not any(first[ACTIVE].values())
    assert first.value(IO, "write", "tcp") < 20 << 20


def test_a_protocol_that_writes_and_closes_when_it_is_paused(loop):
    """``pause_writing`` and ``resume_writing`` may do what they like with the transport: the sums still hold."""

    class Restless(Pausable):
        def pause_writing(self):
            super().pause_writing()
            self.transport.write(b"paused")

        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"resumed" * 100_000)
            self.transport.writelines([b"more", b"of it"])
            self.transport.close()

    async def main(server, all_peers):
        transport, protocol = await loop.create_connection(Restless, *server.getsockname())
        transport.write(MEGABYTE * 20)
        (await accepted(all_peers)).go.set()
        await protocol.lost

    with peers.listening(reads_late) as (server, all_peers):
        run(loop, main(server, all_peers))
    assert all_peers[0].read_bytes >= (20 << 20) + 6
    assert_passed(loop, "tcp", all_peers[0])
    assert figures(loop, BUFFERED) == {}


def test_limits_set_by_the_program(loop):
    """With a high-water mark of nothing each write that waits pauses, and each pause is an episode."""

    async def main(server, all_peers):
        transport, protocol = await loop.create_connection(Pausable, *server.getsockname())
        transport.set_write_buffer_limits(0)
        transport.write(b"goes out at once")
        assert loop.snapshot().value(EPISODES) == 0
        transport.write(MEGABYTE * 20)
        (await accepted(all_peers)).go.set()
        await protocol.resumed
        transport.close()
        await protocol.lost

    with peers.listening(reads_late) as (server, all_peers):
        run(loop, main(server, all_peers))
    assert loop.snapshot().value(EPISODES) == 1


# ---- in place, and in numbers ----------------------------------------------------------------------------------------


def test_older_connections_are_left_alone():
    """A loop that is observed from now on: what it had goes on uncounted, and what it makes is measured."""
    forget_everything()
    plain = asyncio.SelectorEventLoop()

    def echo(peer, sock):
        while piece := peer.recv(sock):
            peer.send(sock, piece)

    async def main(server):
        old, old_protocol = await plain.create_connection(Lost, *server.getsockname())
        obsloop.instrument(plain, obsloop.Settings(name="main"))
        new, new_protocol = await plain.create_connection(Lost, *server.getsockname())
        for transport in (old, new):
            transport.write(MEGABYTE * 2)
            transport.write_eof()
        await old_protocol.lost
        await new_protocol.lost
        assert old_protocol.received == new_protocol.received == 2 << 20

    with peers.listening(echo) as (server, _):
        plain.run_until_complete(asyncio.wait_for(main(server), LIMIT))
    assert figures(plain, OPENED) == {("tcp", "client"): 1}
    assert figures(plain, IO) == {("read", "tcp"): 2 << 20, ("write", "tcp"): 2 << 20}
    plain.close()


def test_instruments_that_raise_do_not_reach_the_transport(loop, caplog):
    """It is disabled, and the connection is closed as ever."""

    class Broken:
        def on_transport_closed(self, event):
            raise RuntimeError("broken")

    async def main(server):
        for _ in range(2):
            _, protocol = await loop.create_connection(Lost, *server.getsockname())
            assert await protocol.lost is None

    loop.add_instrument(Broken())
    with peers.listening(lambda peer, sock: None) as (server, _):
        run(loop, main(server))
    assert figures(loop, CLOSED) == {("tcp", "eof"): 2}
    assert "on_transport_closed" in caplog.text


@pytest.mark.parametrize("write", ["after close", "after abort", "after loss"])
def test_writes_that_go_nowhere_are_not_counted(loop, write):
    """asyncio drops what is written to a transport that is gone, and so do the figures."""

    async def main(server):
        transport, protocol = await loop.create_connection(Lost, *server.getsockname())
        transport.write(b"12345")
        if write == "after close":
            transport.close()
        elif write == "after abort":
            transport.abort()
        else:
            transport.close()
            await protocol.lost
        transport.write(b"x" * 1000)
        transport.writelines([b"x" * 1000])
        if not protocol.lost.done():
            await protocol.lost

    with peers.listening(peers.Peer.drain) as (server, _):
        run(loop, main(server))
    assert figures(loop, IO) == {("write", "tcp"): 5}
    assert figures(loop, BUFFERED) == {}
