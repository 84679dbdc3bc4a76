"""Streams on the loop: start_server and open_connection, over TCP, TLS and Unix sockets."""

import asyncio
import socket

import pytest

from .support import LIMIT, run


async def shout(reader, writer):
    """Answer each line in capitals, until the client has no more."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def talk(reader, writer):
    """Two lines to such a server, and the end of it."""
    for line in (b"one\n", b"two\n"):
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line.upper()
    if writer.can_write_eof():
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    return True


async def finish(server, served):
    """Close a server once its handlers have ended."""
    server.close()
    await asyncio.gather(*served)
    await server.wait_closed()


def remembering(served, handler=shout):
    """A client handler that notes its task, to be awaited at the end."""

    async def handle(reader, writer):
        served.append(asyncio.current_task())
        await handler(reader, writer)

    return handle


def test_tcp(loop):
    """A line server and its client."""

    async def main():
        served = []
        server = await asyncio.start_server(remembering(served), "127.0.0.1", 0)
        assert isinstance(server, asyncio.Server)
        address = server.sockets[0].getsockname()
        assert await talk(*await asyncio.open_connection(*address))
        assert await talk(*await asyncio.open_connection(*address, limit=10))
        await finish(server, served)

    run(loop, main())


def test_tls(loop, server_tls, client_tls):
    """The same in TLS."""

    async def main():
        served = []
        server = await asyncio.start_server(remembering(served), "127.0.0.1", 0, ssl=server_tls)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client_tls, family=socket.AF_INET)
        assert writer.get_extra_info("cipher")
        assert await talk(reader, writer)
        await finish(server, served)

    run(loop, main())


def test_unix(loop, tmp_path):
    """The same over a path."""
    path = str(tmp_path / "socket")

    async def main():
        served = []
        server = await asyncio.start_unix_server(remembering(served), path)
        assert await talk(*await asyncio.open_unix_connection(path))
        await finish(server, served)

    run(loop, main())


def test_a_plain_function_as_handler(loop):
    """The client handler may be a function that is no coroutine."""

    async def main():
        pairs = asyncio.Queue()
        server = await asyncio.start_server(lambda *pair: pairs.put_nowait(pair), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        theirs = await pairs.get()
        await asyncio.gather(shout(*theirs), talk(reader, writer))
        await finish(server, [])

    run(loop, main())


def test_readuntil_readexactly_and_their_errors(loop):
    """The reader's ways to read, over a real socket."""

    async def send(reader, writer):
        writer.writelines([b"head|", b"12345", b"tail"])
        writer.close()
        await writer.wait_closed()

    async def main():
        served = []
        server = await asyncio.start_server(remembering(served, send), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.readuntil(b"|") == b"head|"
        assert await reader.readexactly(5) == b"12345"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(100)
        assert caught.value.partial == b"tail"
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()
        await finish(server, served)

    run(loop, main())


def test_backpressure(loop):
    """drain() waits for a reader that is slow, and everything arrives in the end."""
    blob = b"x" * 20_000_000
    order = []

    may_read = asyncio.Event()

    async def slow(reader, writer):
        await may_read.wait()
        order.append("reads")
        received = 0
        while data := await reader.read(1 << 20):
            received += len(data)
        assert received == len(blob)
        writer.close()
        await writer.wait_closed()

    async def main():
        served = []
        server = await asyncio.start_server(remembering(served, slow), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(blob)
        loop.call_later(0.02, may_read.set)
        await writer.drain()
        order.append("drained")
        writer.close()
        await writer.wait_closed()
        await finish(server, served)

    run(loop, main())
    assert order == ["reads", "drained"]


def test_a_reader_that_is_cancelled(loop):
    """A read can be given up by a timeout, and read again."""

    async def wait_then_send(reader, writer):
        await reader.readline()
        writer.write(b"at last\n")
        writer.close()
        await writer.wait_closed()

    async def main():
        served = []
        server = await asyncio.start_server(remembering(served, wait_then_send), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.01)
        writer.write(b"go\n")
        assert await asyncio.wait_for(reader.readline(), LIMIT) == b"at last\n"
        writer.close()
        await writer.wait_closed()
        await finish(server, served)

    run(loop, main())
