"""websockets, server and client on one loop."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

pytestmark = pytest.mark.clients

SIZES = [0, 1, 125, 126, 1000, 65_535, 65_536, 500_000]
PLAIN = {"compression": None, "max_size": 1 << 20}


async def echo(connection) -> None:
    """Every message back, until the other side has had enough."""
    async for message in connection:
        await connection.send(message)


def port_of(server) -> int:
    """Where it listens."""
    return server.sockets[0].getsockname()[1]


def test_echo(program):
    """Messages of all sizes of frame, binary and text, come back as they went."""
    messages = [bytes(size) for size in SIZES] + ["x" * size for size in SIZES]

    async def main():
        async with serve(echo, "127.0.0.1", 0, **PLAIN) as server:
            async with connect(f"ws://127.0.0.1:{port_of(server)}", proxy=None, **PLAIN) as client:
                answers = []
                for message in messages:
                    await client.send(message)
                    answers.append(await client.recv())
            return answers, client.close_code

    answers, code = program.run(main())
    assert answers == messages
    assert code == 1000
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * len(messages)  # there and back
        assert figures.ran("task_step") >= 2 * len(messages)
        assert figures.jobs() == {}
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (1, 1)
        # There and back; a frame's head has 14 bytes at most, and the handshakes have some hundred.
        payload = 2 * sum(map(len, messages))
        carried = figures.transferred("write", "tcp")
        assert payload < carried < payload + 2 * 14 * len(messages) + 4096
        assert figures.transferred("read", "tcp") == carried


def test_many_clients_at_once(program):
    """A hundred connections of twenty messages each."""
    clients, n = 100, 20

    async def talk(url, me):
        async with connect(url, proxy=None, **PLAIN) as client:
            for i in range(n):
                await client.send(f"{me} {i}")
                assert await client.recv() == f"{me} {i}"
        return client.close_code

    async def main():
        async with serve(echo, "127.0.0.1", 0, **PLAIN) as server:
            url = f"ws://127.0.0.1:{port_of(server)}"
            return await asyncio.gather(*(talk(url, me) for me in range(clients)))

    assert program.run(main()) == [1000] * clients
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * clients * n
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (clients, clients)


def test_ping_and_the_closing_handshake(program):
    """Pings are answered; the server ends the connection with a code and a reason, and both sides know them."""
    seen = []

    async def goodbye(connection) -> None:
        await connection.recv()
        await connection.close(4001, "that was all")
        seen.append((connection.close_code, connection.close_reason))

    async def main():
        async with serve(goodbye, "127.0.0.1", 0, **PLAIN) as server:
            async with connect(f"ws://127.0.0.1:{port_of(server)}", proxy=None, **PLAIN) as client:
                latencies = [await (await client.ping()) for _ in range(20)]
                await client.send("go on")
                with pytest.raises(ConnectionClosedError):
                    await client.recv()
                await client.wait_closed()
            return latencies, client.close_code, client.close_reason

    latencies, *why = program.run(main())
    assert len(latencies) == 20
    assert min(latencies) > 0
    assert why == [4001, "that was all"]
    assert seen == [(4001, "that was all")]
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * 20


def test_a_server_that_goes_away(program):
    """The server closes while a client waits: a clean end (1001), no error that nobody caught."""

    async def main():
        server = await serve(echo, "127.0.0.1", 0, **PLAIN)
        async with connect(f"ws://127.0.0.1:{port_of(server)}", proxy=None, **PLAIN) as client:
            await client.send("first")
            first = await client.recv()
            waiting = asyncio.create_task(client.recv())
            await asyncio.sleep(0)
            server.close()
            await server.wait_closed()
            with pytest.raises(ConnectionClosedOK):
                await waiting
        return first, client.close_code

    assert program.run(main()) == ("first", 1001)
