"""The low-level socket methods: sock_recv, sock_sendall, sock_connect, sock_accept and their kin."""

import asyncio
import io
import socket

import pytest

from .support import Peer, hang_up, listener, run, socket_pair, unused_port


@pytest.fixture
def pair():
    """Two connected non-blocking sockets."""
    with socket_pair() as both:
        yield both


@pytest.fixture
def udp():
    """Two non-blocking datagram sockets."""
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        yield a, b


def test_recv_what_is_there_and_what_comes_later(loop, pair):
    """Data that has arrived is returned at once, else the coroutine waits; at most nbytes; b'' at the end."""
    a, b = pair

    async def main():
        b.send(b"here already")
        assert await loop.sock_recv(a, 4) == b"here"
        assert await loop.sock_recv(a, 100) == b" already"
        waiting = asyncio.ensure_future(loop.sock_recv(a, 100))
        await asyncio.sleep(0)
        assert not waiting.done()
        b.send(b"later")
        assert await waiting == b"later"
        b.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(a, 100) == b""

    run(loop, main())


def test_recv_into(loop, pair):
    """recv_into fills the caller's buffer and returns how much."""
    a, b = pair
    buffer = bytearray(10)

    async def main():
        waiting = asyncio.ensure_future(loop.sock_recv_into(a, buffer))
        await asyncio.sleep(0)
        b.send(b"into")
        assert await waiting == 4
        assert buffer[:4] == b"into"

    run(loop, main())


def test_sendall_sends_all(loop, pair):
    """More than the socket's buffer holds is sent in pieces; None at the end."""
    a, b = pair
    blob = bytes(range(256)) * 40_000

    async def read_all():
        received = bytearray()
        while len(received) < len(blob):
            received += await loop.sock_recv(b, 1 << 20)
        return received

    async def main():
        result, received = await asyncio.gather(loop.sock_sendall(a, blob), read_all())
        assert result is None
        assert received == blob
        assert await loop.sock_sendall(a, memoryview(b"a view")) is None
        assert await loop.sock_recv(b, 100) == b"a view"

    run(loop, main())


def test_sendall_to_nobody(loop, pair):
    """An error while sending is raised."""
    a, b = pair
    b.close()

    async def main():
        with pytest.raises(OSError, match=r"[Bb]roken pipe|reset"):
            await loop.sock_sendall(a, b"x" * 10_000_000)

    run(loop, main())


def test_cancelled_recv_leaves_the_socket_usable(loop, pair):
    """A recv that was cancelled watches no longer, and the next one gets the data."""
    a, b = pair

    async def main():
        waiting = asyncio.ensure_future(loop.sock_recv(a, 100))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert loop.remove_reader(a) is False
        b.send(b"for the next")
        assert await loop.sock_recv(a, 100) == b"for the next"

    run(loop, main())


def test_accept_and_connect(loop):
    """accept gives a new non-blocking socket and the other end's address; connect returns None."""

    async def main():
        with listener() as server, socket.socket() as client:
            client.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(server))
            assert await loop.sock_connect(client, server.getsockname()) is None
            conn, address = await accepting
            with conn:
                assert isinstance(conn, socket.socket)
                assert conn.gettimeout() == 0
                assert address == client.getsockname()
                await loop.sock_sendall(conn, b"welcome")
                assert await loop.sock_recv(client, 100) == b"welcome"

    run(loop, main())


def test_accept_what_waits_already(loop):
    """A connection that is in the backlog is accepted at once."""

    async def main():
        with listener() as server, socket.create_connection(server.getsockname()) as client:
            conn, address = await loop.sock_accept(server)
            conn.close()
            assert address == client.getsockname()

    run(loop, main())


def test_connect_resolves_a_host_name(loop):
    """The address need not be resolved: a name goes through the loop's getaddrinfo."""

    async def main():
        with listener() as server, socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("localhost", server.getsockname()[1]))
            assert client.getpeername() == server.getsockname()
            conn, _ = await loop.sock_accept(server)
            conn.close()

    run(loop, main())


def test_connect_errors(loop):
    """Refused and unknown: the system's own errors."""

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(client, ("127.0.0.1", unused_port()))
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(socket.gaierror):
                await loop.sock_connect(client, ("name.invalid", 80))

    run(loop, main())


def test_connect_to_a_path(loop, tmp_path):
    """Unix sockets connect by path."""
    path = str(tmp_path / "socket")

    async def main():
        with listener(socket.AF_UNIX, path) as server, socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, path)
            conn, _ = await loop.sock_accept(server)
            conn.close()

    run(loop, main())


def test_datagrams(loop, udp):
    """sendto returns the number of bytes; recvfrom and recvfrom_into give the sender's address as well."""
    a, b = udp

    async def main():
        waiting = asyncio.ensure_future(loop.sock_recvfrom(b, 100))
        await asyncio.sleep(0)
        assert await loop.sock_sendto(a, b"datagram", b.getsockname()) == 8
        assert await waiting == (b"datagram", a.getsockname())
        buffer = bytearray(100)
        waiting = asyncio.ensure_future(loop.sock_recvfrom_into(b, buffer))
        await asyncio.sleep(0)
        await loop.sock_sendto(a, b"into", b.getsockname())
        assert await waiting == (4, a.getsockname())
        assert buffer[:4] == b"into"
        await loop.sock_sendto(a, b"truncated", b.getsockname())
        assert await loop.sock_recvfrom_into(b, buffer, 5) == (5, a.getsockname())

    run(loop, main())


@pytest.mark.parametrize("native", [True, False])
def test_sendfile(loop, tmp_path, native):
    """A file goes out from an offset, at most count bytes, by the system call or the fallback."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)

    async def main():
        with listener() as server, socket.socket() as client, path.open("rb") as file:
            client.setblocking(False)
            await loop.sock_connect(client, server.getsockname())
            conn, _ = await loop.sock_accept(server)
            with conn:
                sent = await loop.sock_sendfile(client, file, 256, 2560, fallback=not native)
                assert sent == 2560
                assert file.tell() == 256 + 2560
                received = b""
                while len(received) < sent:
                    received += await loop.sock_recv(conn, 1 << 20)
                assert received == bytes(range(256)) * 10
                with pytest.raises(ValueError, match="binary mode"), path.open(encoding="latin-1") as text:
                    await loop.sock_sendfile(client, text)

    run(loop, main())


def test_sendfile_fallback(loop, pair):
    """What is no real file is refused without the fallback, and sent by reading with it."""
    a, b = pair
    blob = b"not a file" * 1000

    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(a, io.BytesIO(blob), fallback=False)
        assert await loop.sock_sendfile(a, io.BytesIO(blob)) == len(blob)
        received = b""
        while len(received) < len(blob):
            received += await loop.sock_recv(b, 1 << 20)
        assert received == blob

    run(loop, main())


def test_transport_sendfile(loop, tmp_path):
    """loop.sendfile sends a file through a transport, behind what was written before."""
    path = tmp_path / "file"
    path.write_bytes(b"file" * 1000)

    async def main():
        with listener() as server, path.open("rb") as file:
            connecting = asyncio.ensure_future(loop.create_connection(Peer, *server.getsockname()))
            conn, _ = await loop.sock_accept(server)
            transport, peer = await connecting
            with conn:
                transport.write(b"head")
                assert await loop.sendfile(transport, file) == 4000
                received = b""
                while len(received) < 4004:
                    received += await loop.sock_recv(conn, 1 << 20)
                assert received == b"head" + b"file" * 1000
                await hang_up(peer)

    run(loop, main())


def test_blocking_sockets_are_refused_in_debug_mode(loop):
    """The socket must be non-blocking; debug mode checks that."""
    loop.set_debug(True)

    async def main():
        a, b = socket.socketpair()
        with a, b:
            for attempt in (
                loop.sock_recv(a, 1),
                loop.sock_recv_into(a, bytearray(1)),
                loop.sock_sendall(a, b"x"),
                loop.sock_connect(a, ("127.0.0.1", 1)),
                loop.sock_accept(a),
            ):
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await attempt

    run(loop, main())
