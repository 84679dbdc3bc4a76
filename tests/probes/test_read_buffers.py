"""Reads share a buffer: none sees what another one has read."""

import asyncio
import threading

import obsloop
from tests.support import LIMIT

SIZE = 1 << 19


async def stream(fill: bytes) -> bytes:
    """Send much of one byte to an echo server, and return what comes back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(SIZE):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    got = b""
    for _ in range(20):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(fill * SIZE)
        got += await reader.readexactly(SIZE)
        writer.close()
        await writer.wait_closed()
    server.close()
    return got


class Keeps(asyncio.DatagramProtocol):
    """Keeps the datagrams, and answers each one."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.put_nowait(data)


async def datagrams(fill: bytes) -> bytes:
    """Send datagrams of one byte from one socket to another, each when the last has arrived."""
    loop = asyncio.get_running_loop()
    there, kept = await loop.create_datagram_endpoint(Keeps, local_addr=("127.0.0.1", 0))
    here, _ = await loop.create_datagram_endpoint(Keeps, remote_addr=there.get_extra_info("sockname"))
    got = b""
    for number in range(300):
        here.sendto(fill * (1 + number * 100))
        got += await asyncio.wait_for(kept.got.get(), LIMIT)
    here.close()
    there.close()
    await asyncio.sleep(0)
    return got


def in_threads(work, expected: int) -> None:
    """Run `work` on four loops in four threads at once, each with a byte of its own."""
    found: dict[bytes, bytes] = {}

    def run(fill: bytes) -> None:
        found[fill] = obsloop.run(work(fill))

    threads = [threading.Thread(target=run, args=(bytes([n]),)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {fill: got == fill * expected for fill, got in found.items()} == dict.fromkeys(
        [bytes([n]) for n in range(1, 5)], True
    )


def test_streams_of_several_threads():
    """Long reads release the interpreter's lock, so that two threads read at the same time."""
    in_threads(stream, 20 * SIZE)


def test_datagrams_of_several_threads():
    """Each loop has its buffer for datagrams."""
    in_threads(datagrams, sum(1 + number * 100 for number in range(300)))


def test_a_datagram_is_cut_where_the_transport_says():
    """`max_size` is a public attribute: what is set there holds for the next read."""

    async def main() -> list[bytes]:
        loop = asyncio.get_running_loop()
        there, kept = await loop.create_datagram_endpoint(Keeps, local_addr=("127.0.0.1", 0))
        here, _ = await loop.create_datagram_endpoint(Keeps, remote_addr=there.get_extra_info("sockname"))
        got = []
        for size in (1 << 18, 3, 1 << 20):
            there.max_size = size
            here.sendto(b"abcdef")
            got.append(await asyncio.wait_for(kept.got.get(), LIMIT))
        here.close()
        there.close()
        await asyncio.sleep(0)
        return got

    assert obsloop.run(main()) == [b"abcdef", b"abc", b"abcdef"]
