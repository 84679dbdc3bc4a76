"""asyncpg with a real PostgreSQL, over TCP and over its Unix socket."""

import asyncio
import time

import asyncpg
import pytest

from obsloop.testing import Recorder

from .figures import DURATION

pytestmark = pytest.mark.clients

LINE = b"x" * 1023 + b"\n"
LINES = 8192
BLOCK = 0.5


def to(address, network: str = "tcp") -> dict[str, object]:
    """Where and as whom to connect."""
    host = "127.0.0.1" if network == "tcp" else str(address.path)
    return {"host": host, "port": address.port, "user": "obsloop", "database": "postgres", "ssl": False}


async def connect(address, network: str = "tcp") -> asyncpg.Connection:
    """A connection as the tests' user."""
    return await asyncpg.connect(**to(address, network))


@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_queries_one_after_another(program, postgresql, network):
    """Each of 200 answers has to come in before the next query goes out: so many readers ran, and so many steps."""
    n = 200

    async def main():
        connection = await connect(postgresql, network)
        try:
            return [await connection.fetchval("select $1::int * 2", i) for i in range(n)]
        finally:
            await connection.close()

    assert program.run(main()) == [2 * i for i in range(n)]
    if figures := program.figures:
        assert figures.ran("reader") >= n
        assert figures.ran("task_step") >= n
        assert figures.jobs() == {}
        assert (figures.opened("tcp", "client"), figures.opened("unix", "client")) == (
            network == "tcp",
            network == "unix",
        )
        # Each Bind, Execute and Sync has 20 bytes at the least, each answer with its row as well.
        assert figures.transferred("write", network) >= 20 * n
        assert figures.transferred("read", network) >= 20 * n


def test_a_pool_with_ten_queries_at_once(program, postgresql):
    """Ten times 0.2 s in the database are two seconds, but not here: the loop waits for all of them at once."""

    async def main():
        async with asyncpg.create_pool(**to(postgresql), min_size=10, max_size=10) as pool:
            began = time.monotonic()
            backends = await asyncio.gather(
                *(pool.fetchval("select pg_backend_pid() from pg_sleep(0.2)") for _ in range(10))
            )
            return backends, time.monotonic() - began

    backends, took = program.run(main())
    assert len(set(backends)) == 10
    assert 0.2 <= took < 2.0
    if figures := program.figures:
        assert figures.state("idle") >= 0.15
        assert figures.run_time >= 0.2
        assert figures.ran("reader") >= 10
        assert figures.opened("tcp", "client") == 10


def test_copy_in_and_out(program, postgresql):
    """8 MiB go to the database by COPY and come back the same way, line for line."""

    async def source():
        for _ in range(LINES // 64):
            yield LINE * 64

    async def main():
        connection = await connect(postgresql)
        received, whole = 0, True

        async def sink(data: bytes) -> None:
            nonlocal received, whole
            received += len(data)
            whole = whole and not data.strip(b"x\n")

        try:
            await connection.execute("create temporary table lines (line text)")
            copied_in = await connection.copy_to_table("lines", source=source(), format="text")
            counted = await connection.fetchval("select sum(length(line) + 1) from lines")
            copied_out = await connection.copy_from_query("select line from lines", output=sink, format="text")
        finally:
            await connection.close()
        return copied_in, counted, copied_out, received, whole

    expected = f"COPY {LINES}"
    assert program.run(main()) == (expected, LINES * 1024, expected, LINES * 1024, True)
    if figures := program.figures:
        assert figures.ran("reader") >= LINES * 1024 / (256 * 1024)  # a transport reads 256 KiB at most
        # COPY adds five bytes to a message: one line on the way out.
        for direction in ("read", "write"):
            assert LINES * 1024 <= figures.transferred(direction, "tcp") <= LINES * (1024 + 5) + 16 * 1024


def test_listen_and_notify(program, postgresql):
    """Fifty notifications from one connection reach the other one, in their order."""
    n = 50

    async def main():
        listener, notifier = await asyncio.gather(connect(postgresql), connect(postgresql, "unix"))
        arrived, everything = [], asyncio.Event()

        def on_notification(connection, pid, channel, payload):
            arrived.append(payload)
            if len(arrived) == n:
                everything.set()

        try:
            await listener.add_listener("news", on_notification)
            for i in range(n):
                await notifier.execute("select pg_notify('news', $1)", str(i))
            await asyncio.wait_for(everything.wait(), 30)
            await listener.remove_listener("news", on_notification)
        finally:
            await listener.close()
            await notifier.close()
        return arrived

    assert program.run(main()) == [str(i) for i in range(n)]
    if figures := program.figures:
        assert figures.ran("reader") >= n
        assert (figures.opened("tcp", "client"), figures.opened("unix", "client")) == (1, 1)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_a_query_that_is_given_up(program, postgresql, how):
    """The database is told (over a connection of its own), nothing goes on there, and the connection can be used."""

    async def main():
        connection = await connect(postgresql)
        try:
            pid = connection.get_server_pid()
            if how == "cancelled":
                query = asyncio.create_task(connection.execute("select pg_sleep(60)"))
                await asyncio.sleep(0.2)
                query.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await query
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await connection.execute("select pg_sleep(60)", timeout=0.2)
            now = await connection.fetchval("select pg_backend_pid()")
        finally:
            await connection.close()
        other = await connect(postgresql)
        try:
            sleeping = await other.fetchval("select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'")
        finally:
            await other.close()
        return pid == now, sleeping

    began = time.monotonic()
    assert program.run(main()) == (True, 0)
    assert time.monotonic() - began < 55
    if figures := program.figures:
        assert figures.ran("timer") >= 1
        assert figures.run_time >= 0.2
        assert figures.opened("tcp", "client") == 3  # the query's, the one that tells, and the other


def test_a_block_within_a_transaction_is_found(program, postgresql):
    """Somebody sleeps for half a second while a transaction is open: he is named, his time known, the work done."""

    async def careless(connection):
        async with connection.transaction():
            await connection.execute("create temporary table t (i int) on commit drop")
            await connection.execute("insert into t select generate_series(1, 100)")
            time.sleep(BLOCK)
            return await connection.fetchval("select sum(i) from t")

    async def main():
        connection = await connect(postgresql)
        try:
            return await careless(connection)
        finally:
            await connection.close()

    with Recorder() as events:
        assert program.run(main()) == 5050
    if figures := program.figures:
        (event,) = (event for event in events.slow_callbacks if event.duration >= BLOCK)
        # The task is main's: a coroutine that is awaited is part of its caller's step. The culprit is the coroutine.
        assert event.name.endswith(".main")
        assert event.culprit_function.endswith(".careless")
        assert event.kind == "task_step"
        assert figures.slow("careless") >= 1
        steps = figures.snapshot.histogram(DURATION, "task_step")
        assert steps.sum >= BLOCK
