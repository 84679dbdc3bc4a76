"""create_unix_server and create_unix_connection. With TLS: test_tls."""

import asyncio
import errno
import os
import socket
import sys

import pytest

from .support import Echo, Peer, exchange, hang_up, listener, run


@pytest.fixture
def path(tmp_path):
    """A path for a socket."""
    return tmp_path / "socket"


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: path], ids=["str", "bytes", "Path"])
def test_exchange_over_a_path(loop, path, kind):
    """A path of any kind serves both to listen on and to connect to."""

    async def main():
        made = []
        server = await loop.create_unix_server(lambda: made.append(Echo()) or made[-1], kind(path))
        assert isinstance(server, asyncio.Server)
        (sock,) = server.sockets
        assert sock.family == socket.AF_UNIX
        transport, client = await loop.create_unix_connection(Peer, kind(path))
        assert client.events == ["made"]
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        assert await exchange(client, b"hello") == b"hello"
        await hang_up(client)
        await made[0].closed
        server.close()
        await server.wait_closed()
        assert not server.sockets

    run(loop, main())


def test_sock(loop, path):
    """sock= takes a bound socket to listen on, and a connected one to connect with."""

    async def main():
        made = []
        sock = listener(socket.AF_UNIX, str(path))
        server = await loop.create_unix_server(lambda: made.append(Echo()) or made[-1], sock=sock)
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(path))
        _, client = await loop.create_unix_connection(Peer, sock=connected)
        assert await exchange(client, b"mine") == b"mine"
        await hang_up(client)
        await made[0].closed
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_path_and_sock_exclude_one_another(loop, path):
    """Both, neither, or a socket of another kind: ValueError."""

    async def main():
        with socket.socket(socket.AF_UNIX) as sock, socket.socket() as tcp:
            for create in (loop.create_unix_server, loop.create_unix_connection):
                with pytest.raises(ValueError, match="path and sock can not be specified at the same time"):
                    await create(Peer, str(path), sock=sock)
                with pytest.raises(ValueError, match=r"no.*sock"):
                    await create(Peer)
                with pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected"):
                    await create(Peer, sock=tcp)
                with pytest.raises(ValueError, match="only meaningful with ssl"):
                    await create(Peer, str(path), ssl_handshake_timeout=1)
            with pytest.raises(ValueError, match="server_hostname is only meaningful with ssl"):
                await loop.create_unix_connection(Peer, str(path), server_hostname="obsloop.test")

    run(loop, main())


def test_a_stale_socket_is_replaced(loop, path):
    """A socket file that a dead server left is removed; a file of another kind is an error."""

    async def main():
        listener(socket.AF_UNIX, str(path)).close()
        server = await loop.create_unix_server(Echo, str(path))
        server.close()
        await server.wait_closed()

    run(loop, main())

    async def not_a_socket():
        plain = path.with_name("plain file")
        plain.write_text("not a socket")
        with pytest.raises(OSError, match="is already in use") as caught:
            await loop.create_unix_server(Echo, str(plain))
        assert caught.value.errno == errno.EADDRINUSE

    run(loop, not_a_socket())


def test_the_path_after_close(loop, path):
    """The socket file is removed with its server since 3.13, unless cleanup_socket=False."""

    async def main():
        server = await loop.create_unix_server(Echo, str(path))
        assert path.is_socket()
        server.close()
        await server.wait_closed()
        assert path.is_socket() is (sys.version_info < (3, 13))
        if sys.version_info >= (3, 13):
            server = await loop.create_unix_server(Echo, str(path), cleanup_socket=False)
            server.close()
            await server.wait_closed()
            assert path.is_socket()

    run(loop, main())


def test_abstract_socket(loop):
    """A name that begins with NUL needs no file."""
    name = f"\0obsloop-test-{os.getpid()}-{id(loop)}"

    async def main():
        made = []
        server = await loop.create_unix_server(lambda: made.append(Echo()) or made[-1], name)
        _, client = await loop.create_unix_connection(Peer, name)
        assert await exchange(client, b"abstract") == b"abstract"
        await hang_up(client)
        await made[0].closed
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_nobody_there(loop, path):
    """No file, or a file that nobody listens on, is the system's own error."""

    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(pytest.fail, str(path))
        listener(socket.AF_UNIX, str(path)).close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(pytest.fail, str(path))

    run(loop, main())


def test_start_serving_later(loop, path):
    """start_serving=False binds and does not listen yet."""

    async def main():
        server = await loop.create_unix_server(Echo, str(path), start_serving=False, backlog=1)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(Peer, str(path))
        server.close()
        await server.wait_closed()

    run(loop, main())
