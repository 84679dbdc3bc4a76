"""redis-py with a real Redis, over TCP and over its Unix socket."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import redis.asyncio as redis

pytestmark = pytest.mark.clients


class Traffic(NamedTuple):
    """What Redis itself has counted."""

    connections: int
    received: int
    sent: int


@pytest.fixture
def traffic(redis_server) -> Iterator[Callable[[], Traffic]]:
    """A function that tells the traffic since the test began; but for that of the one connection that asks for it."""
    question = b"INFO stats\r\n"
    with socket.create_connection(("127.0.0.1", redis_server.port)) as connection, connection.makefile("rb") as answers:

        def ask() -> tuple[Traffic, int]:
            connection.sendall(question)
            header = answers.readline()
            text = answers.read(int(header[1:]) + 2)
            figures = dict(line.split(":", 1) for line in text.decode().split() if ":" in line)
            names = ("total_connections_received", "total_net_input_bytes", "total_net_output_bytes")
            return Traffic(*(int(figures[name]) for name in names)), len(header) + len(text)

        before, length = ask()  # this question is in it, and its answer not yet

        def since() -> Traffic:
            now, _ = ask()
            return Traffic(
                now.connections - before.connections,
                now.received - before.received - len(question),
                now.sent - before.sent - length,
            )

        yield since


@pytest.fixture
def client_for(redis_server):
    """A function that makes a client with at most so many connections; all data of tests before is gone."""

    def make(network: str = "tcp", connections: int = 1) -> redis.Redis:
        where = (
            {"host": "127.0.0.1", "port": redis_server.port}
            if network == "tcp"
            else {"path": str(redis_server.path), "connection_class": redis.UnixDomainSocketConnection}
        )
        pool = redis.BlockingConnectionPool(max_connections=connections, timeout=30, **where)
        return redis.Redis.from_pool(pool)

    return make


@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_pipelines(program, client_for, network, traffic):
    """Ten pipelines of a thousand commands each: every answer is there, and every byte that Redis counted too."""

    async def main():
        async with client_for(network) as client:
            await client.flushall()
            totals = []
            for _ in range(10):
                async with client.pipeline(transaction=False) as pipeline:
                    for _ in range(1000):
                        pipeline.incr("counter")
                    totals.append((await pipeline.execute())[-1])
            return totals

    assert program.run(main()) == [1000 * (i + 1) for i in range(10)]
    if figures := program.figures:
        assert figures.ran("reader") >= 11
        assert figures.ran("task_step") >= 11
        assert figures.jobs() == {}  # an address needs no look-up
        assert figures.opened(network, "client") == 1
        counted = (figures.transferred("write", network), figures.transferred("read", network))
        assert (1, *counted) == traffic()
        assert min(counted) > 10_000


def test_a_thousand_commands_at_once(program, client_for, traffic):
    """A thousand tasks share twenty connections: each gets its own answer, and Redis saw the same traffic."""
    n = 1000

    async def main():
        async with client_for(connections=20) as client:
            await asyncio.gather(*(client.set(f"key {i}", i) for i in range(n)))
            return await asyncio.gather(*(client.get(f"key {i}") for i in range(n)))

    assert program.run(main()) == [str(i).encode() for i in range(n)]
    if figures := program.figures:
        assert figures.ran("task_step") >= 2 * n
        assert figures.ran("reader") >= 2 * n  # one command is under way on a connection at a time
        assert 1 <= figures.opened("tcp", "client") <= 20
        carried = [figures.transferred(direction, "tcp") for direction in ("write", "read")]
        assert (figures.opened("tcp", "client"), *carried) == traffic()


def test_publish_and_subscribe(program, client_for):
    """A hundred messages arrive at two subscribers, in their order."""
    n = 100

    async def subscriber(ready):
        async with client_for() as client, client.pubsub() as channel:
            await channel.subscribe("news")
            assert (await channel.get_message(timeout=30))["type"] == "subscribe"
            ready.release()
            messages = []
            while len(messages) < n:
                message = await channel.get_message(timeout=30)
                messages += [int(message["data"])] if message else []
            return messages

    async def main():
        ready = asyncio.Semaphore(0)
        subscribers = [asyncio.create_task(subscriber(ready)) for _ in range(2)]
        for _ in subscribers:
            await ready.acquire()
        async with client_for() as client:
            heard = [await client.publish("news", i) for i in range(n)]
        return heard, await asyncio.wait_for(asyncio.gather(*subscribers), 30)

    heard, messages = program.run(main())
    assert heard == [2] * n
    assert messages == [list(range(n))] * 2
    if figures := program.figures:
        assert figures.ran("reader") >= n
        assert figures.opened("tcp", "client") == 3


def test_a_command_that_waits(program, client_for):
    """BLPOP waits 0.3 s for what another client pushes; the loop is idle meanwhile. Where nothing comes, it ends."""

    async def main():
        async with client_for() as client, client_for() as other:
            await client.flushall()
            began = time.monotonic()
            waiting = asyncio.create_task(client.blpop(["queue"], timeout=30))
            await asyncio.sleep(0.3)
            await other.rpush("queue", "job")
            answer = await waiting
            took = time.monotonic() - began
            return answer, took, await client.blpop(["queue"], timeout=0.2)

    answer, took, nothing = program.run(main())
    assert answer == (b"queue", b"job")
    assert took >= 0.3
    assert nothing is None
    if figures := program.figures:
        assert figures.run_time >= 0.5
        assert figures.state("idle") >= 0.4
        assert figures.ran("timer") >= 1
        assert figures.opened("tcp", "client") == 2
