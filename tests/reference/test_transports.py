"""The transport of a connection: its data, its flow control, its ends."""

import asyncio
import socket

from .support import Peer, echo_server, hang_up, listener, run


def test_large_data_both_ways(loop):
    """More than any socket buffer holds goes out and comes back whole; write_eof ends it."""
    blob = bytes(range(256)) * 20_000

    async def main():
        async with echo_server() as port:
            transport, peer = await loop.create_connection(Peer, "127.0.0.1", port)
            transport.writelines([blob[:1000], blob[1000:]])
            assert await peer.received(len(blob)) == blob
            assert transport.can_write_eof()
            transport.write_eof()
            assert await peer.closed is None
            assert peer.events == ["made", "eof", "lost"]

    run(loop, main())


def test_extra_info(loop):
    """The transport tells the socket and both addresses."""

    async def main():
        async with echo_server() as port:
            transport, peer = await loop.create_connection(Peer, "127.0.0.1", port)
            assert transport.get_extra_info("peername") == ("127.0.0.1", port)
            sock = transport.get_extra_info("socket")
            assert sock.getsockname() == transport.get_extra_info("sockname")
            assert sock.type == socket.SOCK_STREAM
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert transport.get_extra_info("no such thing", "default") == "default"
            await hang_up(peer)

    run(loop, main())


def test_abort_and_reset(loop):
    """abort() drops the connection at once, with connection_lost(None); the other end hears of it."""

    async def main():
        async with echo_server() as port:
            transport, peer = await loop.create_connection(Peer, "127.0.0.1", port)
            transport.write(b"x")
            transport.abort()
            assert transport.is_closing()
            assert await peer.closed is None
            assert peer.events == ["made", "lost"]

    run(loop, main())


def test_flow_control(loop):
    """A writer that outruns its reader is paused at the high mark and resumed below the low one."""

    class Paused(Peer):
        def pause_writing(self):
            self.events.append("pause")

        def resume_writing(self):
            self.events.append("resume")

    async def main():
        with listener() as server:
            connecting = asyncio.ensure_future(loop.create_connection(Paused, *server.getsockname()))
            conn, _ = await loop.sock_accept(server)
            transport, peer = await connecting
            with conn:
                transport.set_write_buffer_limits(high=1024, low=512)
                blob = b"x" * 10_000_000
                transport.write(blob)
                assert peer.events == ["made", "pause"]
                assert transport.get_write_buffer_size() > 1024
                left = len(blob)
                while left:
                    left -= len(await loop.sock_recv(conn, 1 << 20))
                assert peer.events == ["made", "pause", "resume"]
                await hang_up(peer)

    run(loop, main())


def test_pause_and_resume_reading(loop):
    """Nothing is delivered to a protocol that has paused its reading."""

    async def main():
        async with echo_server() as port:
            transport, peer = await loop.create_connection(Peer, "127.0.0.1", port)
            transport.pause_reading()
            assert not transport.is_reading()
            transport.write(b"later")
            await asyncio.sleep(0.02)
            assert peer.data == b""
            transport.resume_reading()
            assert await peer.received(5) == b"later"
            await hang_up(peer)

    run(loop, main())


def test_buffered_protocol(loop):
    """A BufferedProtocol gets its data in its own buffer."""

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(100)
            self.got = loop.create_future()
            self.closed = loop.create_future()

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            self.got.set_result(bytes(self.buffer[:nbytes]))

        def connection_lost(self, exc):
            self.closed.set_result(exc)

    async def main():
        async with echo_server() as port:
            transport, protocol = await loop.create_connection(Buffered, "127.0.0.1", port)
            transport.write(b"buffered")
            assert await protocol.got == b"buffered"
            transport.close()
            await protocol.closed

    run(loop, main())


def test_max_size_bounds_each_read(loop):
    """`transport.max_size`, whenever it is set, on the transport or its class, is the most that one read brings."""
    sizes = []

    class Reader(Peer):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.max_size = 1000

        def data_received(self, data):
            sizes.append(len(data))
            super().data_received(data)
            if len(self.data) >= 50_000:
                self.transport.max_size = 3000

    async def main():
        async with echo_server() as port:
            transport, peer = await loop.create_connection(Reader, "127.0.0.1", port)
            transport.write(bytes(100_000))
            await peer.received(100_000)
            await hang_up(peer)
        at = sizes.index(next(n for n in sizes if n > 1000)) if max(sizes) > 1000 else len(sizes)
        assert max(sizes[:at]) <= 1000
        assert sum(sizes[:at]) >= 50_000
        assert max(sizes) <= 3000

    run(loop, main())


def test_a_max_size_that_is_no_size(loop, contexts):
    """The next read fails, and the connection is lost for that."""
    for wrong in ("many", -1, 1 << 100):

        async def main(wrong=wrong):
            async with echo_server() as port:
                transport, peer = await loop.create_connection(Peer, "127.0.0.1", port)
                transport.max_size = wrong
                transport.write(b"x")
                return type(await peer.closed)

        expected = {"many": TypeError, -1: ValueError}.get(wrong, OverflowError)
        assert run(loop, main()) is expected
    assert [context["message"] for context in contexts] == ["Fatal read error on socket transport"] * 3
