"""The Server object: sockets, close, wait_closed, start_serving, serve_forever."""

import asyncio
import socket
import sys

import pytest

from .support import Accepting, Echo, Peer, end, exchange, hang_up, run


def test_server_object(loop):
    """What is returned is a Server with a tuple of its sockets, of its loop, and serving."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=5)
        assert isinstance(server, asyncio.Server)
        assert isinstance(server, asyncio.AbstractServer)
        assert server.get_loop() is loop
        assert server.is_serving()
        (sock,) = server.sockets
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert repr(sock.getsockname()[1]) in repr(server)
        await end(server)

    run(loop, main())


def test_close_stops_listening(loop):
    """After close() the sockets are gone, a new client is refused, and closing again does nothing."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        server.close()
        server.close()
        assert not server.sockets
        assert not server.is_serving()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Peer, *address)

    run(loop, main())


def test_close_leaves_connections_open(loop):
    """Clients that were accepted go on after close(), and wait_closed() is for them since 3.12."""

    async def main():
        accepting = Accepting()
        server = await loop.create_server(accepting, "127.0.0.1", 0)
        _, client = await loop.create_connection(Peer, *server.sockets[0].getsockname())
        assert await exchange(client, b"before") == b"before"
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        assert await exchange(client, b"after") == b"after"
        # Until 3.11 wait_closed() did not wait for the connections, as its documentation says it does.
        assert waiting.done() is (sys.version_info < (3, 12))
        await hang_up(client)
        await accepting.all_closed()
        await waiting

    run(loop, main())


def test_start_serving_later(loop):
    """start_serving=False binds only; start_serving() begins, and a second time does nothing."""

    async def main():
        server = await loop.create_server(accepting := Accepting(), "127.0.0.1", 0, start_serving=False)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Peer, *server.sockets[0].getsockname())
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        _, client = await loop.create_connection(Peer, *server.sockets[0].getsockname())
        assert await exchange(client, b"open") == b"open"
        await hang_up(client)
        await end(server, accepting)

    run(loop, main())


def test_serve_forever_until_cancelled(loop):
    """serve_forever() serves until it is cancelled, and closes the server then."""

    async def main():
        server = await loop.create_server(accepting := Accepting(), "127.0.0.1", 0, start_serving=False)
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="is already being awaited"):
            await server.serve_forever()
        _, client = await loop.create_connection(Peer, *server.sockets[0].getsockname())
        assert await exchange(client, b"served") == b"served"
        await hang_up(client)
        await accepting.all_closed()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()

    run(loop, main())


def test_async_with_closes(loop):
    """A server is an async context manager that closes and waits."""

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            assert server.is_serving()
        assert not server.is_serving()
        assert not server.sockets

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients and abort_clients are new in 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_close_clients(loop, how):
    """A server can end the connections that it accepted, politely or at once."""

    async def main():
        server = await loop.create_server(accepting := Accepting(), "127.0.0.1", 0)
        _, client = await loop.create_connection(Peer, *server.sockets[0].getsockname())
        assert await exchange(client, b"x") == b"x"
        server.close()
        getattr(server, how)()
        await client.closed
        await end(server, accepting)

    run(loop, main())
