"""The nine works that the benchmark times, each on whatever loop it is given.

A work is ``work(loop, n) -> int``: it does about ``n`` operations on the loop and returns how many it did. What one
operation is stands in its docstring. Nothing here measures; ``worker`` does.
"""

import asyncio
from collections.abc import Callable
from typing import Any

Loop = asyncio.AbstractEventLoop
Work = Callable[[Loop, int], int]


def sleep_zero(loop: Loop, n: int) -> int:
    """One step of one of ten tasks that do nothing but ``await asyncio.sleep(0)``."""
    steps = n // 10

    async def task() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(task() for _ in range(10)))

    loop.run_until_complete(main())
    return steps * 10


def call_soon_batches(loop: Loop, n: int) -> int:
    """One callback of a thousand that are scheduled together and run in one iteration."""
    rounds = n // 1000

    def nothing() -> None:
        pass

    def batch(left: int) -> None:
        if not left:
            loop.stop()
            return
        call_soon = loop.call_soon
        for _ in range(999):
            call_soon(nothing)
        call_soon(batch, left - 1)

    loop.call_soon(batch, rounds)
    loop.run_forever()
    return rounds * 1000


def call_soon_chain(loop: Loop, n: int) -> int:
    """One callback that schedules the next: one callback per iteration."""

    def link(left: int) -> None:
        if left:
            loop.call_soon(link, left - 1)
        else:
            loop.stop()

    loop.call_soon(link, n)
    loop.run_forever()
    return n


def timers(loop: Loop, n: int) -> int:
    """One ``await asyncio.sleep(1e-6)`` in one of a hundred tasks."""
    rounds = n // 100

    async def task() -> None:
        for _ in range(rounds):
            await asyncio.sleep(1e-6)

    async def main() -> None:
        await asyncio.gather(*(task() for _ in range(100)))

    loop.run_until_complete(main())
    return rounds * 100


def timers_cancelled(loop: Loop, n: int) -> int:
    """One ``call_later`` and its ``cancel``, a hundred pairs per iteration: the cost of a time-out not needed."""
    rounds = n // 100

    def nothing() -> None:
        pass

    def batch(left: int) -> None:
        if not left:
            loop.stop()
            return
        for handle in [loop.call_later(60.0, nothing) for _ in range(100)]:
            handle.cancel()
        loop.call_soon(batch, left - 1)

    loop.call_soon(batch, rounds)
    loop.run_forever()
    return rounds * 100


def tasks(loop: Loop, n: int) -> int:
    """One task created, run and gathered, a hundred at a time."""
    rounds = n // 100

    async def empty() -> None:
        pass

    async def main() -> None:
        for _ in range(rounds):
            await asyncio.gather(*(empty() for _ in range(100)))

    loop.run_until_complete(main())
    return rounds * 100


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class _Pinger(asyncio.Protocol):
    def __init__(self, rounds: int, done: "asyncio.Future[None]") -> None:
        self.left = rounds
        self.done = done

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"x" * 128)

    def data_received(self, data: bytes) -> None:
        self.left -= 1
        if self.left > 0:
            self.transport.write(data)
        elif not self.done.done():
            self.done.set_result(None)


def tcp_echo(loop: Loop, n: int) -> int:
    """One hop (write, poll, read) of 128 bytes between protocols on one loop, ten connections at once."""
    rounds = n // 20

    async def main() -> None:
        server = await loop.create_server(_Echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dones = [loop.create_future() for _ in range(10)]
        ends = [
            (await loop.create_connection(lambda d=done: _Pinger(rounds, d), "127.0.0.1", port))[0]  # type: ignore[misc]
            for done in dones
        ]
        await asyncio.gather(*dones)
        for end in ends:
            end.close()
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    return rounds * 20


def streams_echo(loop: Loop, n: int) -> int:
    """One hop of a 128-byte line through ``StreamReader`` and ``StreamWriter``, ten connections at once."""
    rounds = n // 20
    line = b"x" * 127 + b"\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.readline():
            writer.write(data)
        writer.close()

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(rounds):
            writer.write(line)
            await reader.readline()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(*(client(port) for _ in range(10)))
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    return rounds * 20


def run_in_executor(loop: Loop, n: int) -> int:
    """One job that does nothing in the default executor, awaited, ten at once."""
    rounds = n // 10

    def nothing() -> None:
        pass

    async def task() -> None:
        for _ in range(rounds):
            await loop.run_in_executor(None, nothing)

    async def main() -> None:
        await asyncio.gather(*(task() for _ in range(10)))

    loop.run_until_complete(main())
    return rounds * 10


#: name in the table -> (work, operations in one measured run)
WORKS: dict[str, tuple[Work, int]] = {
    "sleep(0), 10 tasks": (sleep_zero, 200_000),
    "call_soon, batches of 1,000": (call_soon_batches, 400_000),
    "call_soon chain": (call_soon_chain, 150_000),
    "timers (sleep 1 us, 100 tasks)": (timers, 60_000),
    "timers made and cancelled": (timers_cancelled, 120_000),
    "tasks (gather of 100 empty ones)": (tasks, 80_000),
    "TCP echo, protocols": (tcp_echo, 30_000),
    "streams echo": (streams_echo, 20_000),
    "run_in_executor": (run_in_executor, 15_000),
}
