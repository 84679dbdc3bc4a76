"""TLS handshakes: a peer that takes a known time, and every way that one can fail, each counted once."""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator

import pytest

import obsloop
from obsloop.testing import Recorder
from tests.support import LIMIT

HANDSHAKE = "asyncio.tls.handshake.duration"
CANCELLED = "asyncio.exceptions.CancelledError"


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


def counts(loop, role=None):
    """How many handshakes of each role, or of one, ended how."""
    found = {labels: histogram.count for labels, histogram in loop.snapshot()[HANDSHAKE].items() if histogram.count}
    return found if role is None else {error: n for (who, error), n in found.items() if who == role}


def setups(recorder):
    """The connections that were told of."""
    return [event for event in recorder.events if isinstance(event, obsloop.events.ConnectionSetUp)]


async def until(condition):
    """Wait until `condition()` holds."""
    while not condition():
        await asyncio.sleep(0.001)


async def drain(reader, writer):
    """A server's part: wait for the client to end, then end."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await reader.read()
    writer.close()


@contextlib.asynccontextmanager
async def serving(loop, **kwargs):
    """A server for as long as the block lasts, and until all its connections are over; its address."""
    server = await asyncio.start_server(drain, "127.0.0.1", 0, **kwargs)
    try:
        yield server.sockets[0].getsockname()
    finally:
        await until(lambda: not sum(loop.snapshot()["asyncio.transport.active"].values()))
        server.close()
        await server.wait_closed()


@contextlib.contextmanager
def answering(answer) -> Iterator[tuple[str, int]]:
    """A server in a thread of its own, which gives its one connection to `answer`; its address."""

    def serve():
        conn, _ = listening.accept()
        with conn:
            answer(conn)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            thread.join(LIMIT)


async def connect_and_close(loop, *args, **kwargs):
    transport, _ = await loop.create_connection(asyncio.Protocol, *args, **kwargs)
    transport.close()


def test_both_roles(loop, server_tls, client_tls):
    """One connection between two ends of this loop: a handshake of each, and no longer than it took."""

    async def main():
        async with serving(loop, ssl=server_tls) as address:
            await connect_and_close(loop, *address, ssl=client_tls, server_hostname="localhost")

    began = time.monotonic()
    with Recorder() as events:
        run(loop, main())
    took = time.monotonic() - began
    assert counts(loop) == {("client", ""): 1, ("server", ""): 1}
    for role in ("client", "server"):
        assert 0 < loop.snapshot().histogram(HANDSHAKE, role, "").sum <= took
    (event,) = setups(events)
    assert event.tls_duration == pytest.approx(loop.snapshot().histogram(HANDSHAKE, "client", "").sum)
    assert (event.error_type, event.phase, len(event.attempts)) == ("", "", 1)
    assert event.attempts[0].duration + event.tls_duration <= event.duration


def test_a_peer_that_stalls_for_300_ms(loop, server_tls, client_tls):
    """The handshake lasts for as long; the attempt to connect, which is before, does not."""

    def answer(conn):
        conn.recv(1, socket.MSG_PEEK)  # the client's handshake has begun
        time.sleep(0.3)
        with server_tls.wrap_socket(conn, server_side=True) as tls:
            tls.recv(1)

    with answering(answer) as address, Recorder() as events:
        run(loop, connect_and_close(loop, *address, ssl=client_tls, server_hostname="localhost"))
        run(loop, until_closed(loop))
    assert counts(loop) == {("client", ""): 1}
    assert loop.snapshot().histogram(HANDSHAKE, "client", "").sum >= 0.3
    (event,) = setups(events)
    assert event.tls_duration >= 0.3 > event.attempts[0].duration


async def until_closed(loop):
    await until(lambda: not sum(loop.snapshot()["asyncio.transport.active"].values()))


def test_a_certificate_that_is_not_trusted(loop, server_tls):
    """The client refuses it under its own class; the server's handshake ends once, whichever way."""

    async def main():
        async with serving(loop, ssl=server_tls) as address:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect_and_close(loop, *address, ssl=True, server_hostname="localhost")

    loop.set_exception_handler(lambda loop, context: None)
    with Recorder() as events:
        run(loop, main())
    assert counts(loop, "client") == {"ssl.SSLCertVerificationError": 1}
    assert sum(counts(loop, "server").values()) == 1
    (event,) = setups(events)
    assert (event.error_type, event.phase) == ("ssl.SSLCertVerificationError", "tls")
    assert event.tls_duration > 0
    assert event.attempts[0].error_type == ""


def test_a_name_that_is_not_the_certificates(loop, server_tls, client_tls):
    """Likewise."""

    async def main():
        async with serving(loop, ssl=server_tls) as address:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"another\.test"):
                await connect_and_close(loop, *address, ssl=client_tls, server_hostname="another.test")

    loop.set_exception_handler(lambda loop, context: None)
    run(loop, main())
    assert counts(loop, "client") == {"ssl.SSLCertVerificationError": 1}


def test_a_handshake_time_out(loop, client_tls):
    """The program sees asyncio's ConnectionAbortedError; what it was is a time-out, after 200 ms."""
    over = threading.Event()
    with answering(lambda conn: over.wait(LIMIT)) as address, Recorder() as events:
        with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer than"):
            run(
                loop,
                connect_and_close(
                    loop, *address, ssl=client_tls, server_hostname="localhost", ssl_handshake_timeout=0.2
                ),
            )
        over.set()
        run(loop, until_closed(loop))
    assert counts(loop) == {("client", "TimeoutError"): 1}
    assert loop.snapshot().histogram(HANDSHAKE, "client", "TimeoutError").sum >= 0.2
    (event,) = setups(events)
    assert (event.error_type, event.phase) == ("TimeoutError", "tls")
    assert event.tls_duration >= 0.2


def test_a_client_that_stalls(loop, server_tls):
    """The server gives it up in time, counts it once, and has no connection left."""

    async def main():
        async with serving(loop, ssl=server_tls, ssl_handshake_timeout=0.2) as address:
            with socket.create_connection(address):
                await until(lambda: counts(loop))
                await until_closed(loop)

    run(loop, main())
    assert counts(loop) == {("server", "TimeoutError"): 1}
    assert loop.snapshot().histogram(HANDSHAKE, "server", "TimeoutError").sum >= 0.2
    (active,) = loop.snapshot()["asyncio.server.connections.active"].values()
    assert active == 0


@pytest.mark.parametrize("how", ["ends", "breaks off"])
def test_a_peer_that_hangs_up(loop, client_tls, how):
    """In the middle of the handshake, with and without a proper end."""

    def answer(conn):
        conn.recv(1)
        if how == "ends":
            conn.shutdown(socket.SHUT_WR)
            while conn.recv(10_000):
                pass
        else:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with answering(answer) as address, Recorder() as events:
        with pytest.raises(ConnectionResetError):
            run(loop, connect_and_close(loop, *address, ssl=client_tls, server_hostname="localhost"))
        run(loop, until_closed(loop))
    assert counts(loop) == {("client", "ConnectionResetError"): 1}
    (event,) = setups(events)
    assert (event.error_type, event.phase) == ("ConnectionResetError", "tls")


def test_a_peer_that_does_not_speak_tls(loop, client_tls):
    """An error of the protocol's."""
    with answering(lambda conn: conn.sendall(b"220 mail.example.org\r\n" * 5)) as address:
        with pytest.raises(ssl.SSLError):
            run(loop, connect_and_close(loop, *address, ssl=client_tls, server_hostname="localhost"))
        run(loop, until_closed(loop))
    assert counts(loop) == {("client", "ssl.SSLError"): 1}


def test_cancelled_in_the_handshake(loop, client_tls):
    """Counted as that, once, with the time it had lasted; the event says in which phase."""
    over = threading.Event()

    async def main(address):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connect_and_close(loop, *address, ssl=client_tls, server_hostname="localhost")
        over.set()
        await until_closed(loop)

    with answering(lambda conn: over.wait(LIMIT)) as address, Recorder() as events:
        run(loop, main(address))
    assert counts(loop) == {("client", CANCELLED): 1}
    assert loop.snapshot().histogram(HANDSHAKE, "client", CANCELLED).sum >= 0.15
    (event,) = setups(events)
    assert (event.error_type, event.phase) == (CANCELLED, "tls")
    assert event.tls_duration >= 0.15


def test_a_connection_that_the_program_aborts_in_the_handshake(loop, client_tls):
    """By its socket's transport, as a server does that closes its clients: it was this side."""
    over = threading.Event()

    async def main(address):
        task = loop.create_task(connect_and_close(loop, *address, ssl=client_tls, server_hostname="localhost"))
        await asyncio.sleep(0.1)
        (transport,) = loop._transports.values()
        transport.abort()
        await asyncio.wait([task], timeout=0.1)
        task.cancel()
        await asyncio.wait([task])
        over.set()

    with answering(lambda conn: over.wait(LIMIT)) as address:
        run(loop, main(address))
    assert counts(loop) == {("client", "ConnectionAbortedError"): 1}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_arguments_that_tls_refuses(loop, client_tls):
    """There was no handshake: nothing is counted, and the event says what failed."""
    with answering(lambda conn: None) as address, Recorder() as events:
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - which, and in what words, is the version's
            run(loop, connect_and_close(loop, *address, ssl=client_tls, server_hostname=".example.org"))
        name = raised.type.__name__
        del raised
        gc.collect()  # asyncio leaves the socket to the collector, before 3.14
    assert counts(loop) == {}
    (event,) = setups(events)
    assert (event.error_type, event.phase, event.tls_duration) == (name, "tls", None)


def test_start_tls_of_both_roles(loop, server_tls, client_tls):
    """A connection that becomes TLS later; the server waits for 200 ms after the client has begun."""

    class Upgrading(asyncio.Protocol):
        def connection_made(self, transport):
            # What comes first is for TLS. CPython 3.11.2 begins to read after this method, even if it is paused here.
            loop.call_soon(transport.pause_reading)
            upgrades.append(loop.create_task(self.upgrade(transport)))

        async def upgrade(self, transport):
            await begun.wait()
            for _ in range(5):  # by then the client's handshake has begun
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            self.transport = await loop.start_tls(transport, self, server_tls, server_side=True)

        def connection_lost(self, exc):
            self.transport.close()

    async def main():
        server = await loop.create_server(Upgrading, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        begun.set()
        tls = await loop.start_tls(transport, protocol, client_tls, server_hostname="localhost")
        between = transport.get_protocol()
        assert (type(between).__name__, type(between).__module__) == ("SSLProtocol", "asyncio.sslproto")
        assert repr(between).startswith("<asyncio.sslproto.SSLProtocol object at")
        tls.close()
        await until_closed(loop)
        server.close()
        await asyncio.gather(*upgrades)

    upgrades, begun = [], asyncio.Event()
    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {("client", ""): 1, ("server", ""): 1}
    assert loop.snapshot().histogram(HANDSHAKE, "client", "").sum >= 0.2
    (event,) = setups(events)
    assert event.tls_duration is None, "the connection was set up before"


def test_tls_within_tls(loop, server_tls, client_tls):
    """As through a proxy that is spoken to by TLS: two handshakes of each side."""

    class Upgrading(asyncio.Protocol):
        def connection_made(self, transport):
            upgrades.append(
                loop.create_task(loop.start_tls(transport, asyncio.Protocol(), server_tls, server_side=True))
            )

    async def main():
        server = await loop.create_server(Upgrading, "127.0.0.1", 0, ssl=server_tls)
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(
            asyncio.Protocol, *address, ssl=client_tls, server_hostname="localhost"
        )
        inner = await loop.start_tls(transport, protocol, client_tls, server_hostname="localhost")
        for theirs in await asyncio.gather(*upgrades):
            theirs.abort()
        inner.abort()
        transport.abort()
        await until_closed(loop)
        server.close()

    upgrades = []
    run(loop, main())
    assert counts(loop) == {("client", ""): 2, ("server", ""): 2}


def test_start_tls_that_is_cancelled(loop, client_tls):
    """Once."""
    over = threading.Event()

    async def main(address):
        transport, protocol = await loop.create_connection(asyncio.Protocol, *address)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await loop.start_tls(transport, protocol, client_tls, server_hostname="localhost")
        over.set()
        await until_closed(loop)

    with answering(lambda conn: over.wait(LIMIT)) as address:
        run(loop, main(address))
    assert counts(loop) == {("client", CANCELLED): 1}


def test_streams_start_tls(loop, server_tls, client_tls):
    """``StreamWriter.start_tls``, both ends: what the protocol says is not lost."""

    async def upgrade(reader, writer):
        await writer.start_tls(server_tls)
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await writer.start_tls(client_tls, server_hostname="localhost")
        writer.write(b"over TLS\n")
        assert await reader.read() == b"over TLS\n"
        writer.close()
        await until_closed(loop)
        server.close()

    run(loop, main())
    assert counts(loop) == {("client", ""): 1, ("server", ""): 1}
