"""aiohttp's client against aiohttp's server, on one loop."""

import asyncio
import socket
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

pytestmark = pytest.mark.clients

MIB = 1 << 20
SIZE = 8 * MIB
CHUNK = bytes(64 * 1024)


class Site:
    """The server's handlers, and which connections they were called on."""

    def __init__(self) -> None:
        self.peers: list[tuple[str, int]] = []

    async def hello(self, request: web.Request) -> web.Response:
        """A small answer."""
        self.peers.append(request.transport.get_extra_info("peername"))
        return web.json_response({"hello": request.query.get("name")})

    async def upload(self, request: web.Request) -> web.Response:
        """The length of what was sent."""
        return web.Response(text=str(sum([len(chunk) async for chunk in request.content.iter_any()])))

    async def download(self, request: web.Request) -> web.StreamResponse:
        """As much as was uploaded."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(SIZE // len(CHUNK)):
            await response.write(CHUNK)
        await response.write_eof()
        return response

    async def late(self, request: web.Request) -> web.Response:
        """Longer than anybody waits."""
        await asyncio.sleep(60)
        return web.Response()

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        """A WebSocket of aiohttp's own making."""
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_bytes(message.data)
        return response


@asynccontextmanager
async def serving(site: Site):
    """The port that a server with these handlers listens on."""
    application = web.Application(client_max_size=2 * SIZE)
    application.add_routes(
        [
            web.get("/hello", site.hello),
            web.post("/upload", site.upload),
            web.get("/download", site.download),
            web.get("/late", site.late),
            web.get("/echo", site.echo),
        ]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def connector() -> aiohttp.TCPConnector:
    """Names are looked up in a thread, whatever else is installed."""
    return aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())


def test_requests_on_one_connection(program):
    """A hundred requests one after another go over one connection that is kept: each is read on both sides."""
    n, site = 100, Site()

    async def main():
        async with serving(site) as port, aiohttp.ClientSession(connector=connector()) as session:
            answers = []
            for i in range(n):
                async with session.get(f"http://127.0.0.1:{port}/hello", params={"name": i}) as response:
                    answers.append(await response.json())
            return answers

    assert program.run(main()) == [{"hello": str(i)} for i in range(n)]
    assert len(set(site.peers)) == 1
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * n
        assert figures.lookups == {}  # an address is no name
        assert figures.jobs() == {}
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (1, 1)


def test_requests_at_once(program):
    """Five hundred requests over at most fifty connections."""
    n, site = 500, Site()

    async def get(session, port, i):
        async with session.get(f"http://127.0.0.1:{port}/hello", params={"name": i}) as response:
            return (await response.json())["hello"]

    async def main():
        limited = aiohttp.TCPConnector(limit=50, resolver=aiohttp.ThreadedResolver())
        async with serving(site) as port, aiohttp.ClientSession(connector=limited) as session:
            return await asyncio.gather(*(get(session, port, i) for i in range(n)))

    assert program.run(main()) == [str(i) for i in range(n)]
    assert 1 <= len(set(site.peers)) <= 50
    if figures := program.figures:
        assert figures.ran("task_step") >= n
        connections = len(set(site.peers))
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (connections, connections)


def test_streams_up_and_down(program):
    """8 MiB go up in pieces and 8 MiB come down."""

    async def pieces():
        for _ in range(SIZE // len(CHUNK)):
            yield CHUNK

    async def main():
        async with serving(Site()) as port, aiohttp.ClientSession(connector=connector()) as session:
            async with session.post(f"http://127.0.0.1:{port}/upload", data=pieces()) as response:
                up = int(await response.text())
            async with session.get(f"http://127.0.0.1:{port}/download") as response:
                down = sum([len(chunk) async for chunk in response.content.iter_any()])
            return up, down

    assert program.run(main()) == (SIZE, SIZE)
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * SIZE / (256 * 1024)  # a transport reads 256 KiB at most
        # Each chunk has its length and two ends of lines; then there are heads, and the short answer.
        for direction in ("read", "write"):
            assert 2 * SIZE < figures.transferred(direction, "tcp") < 2 * SIZE + 2 * SIZE // len(CHUNK) * 16 + 4096


def test_a_name_is_looked_up_in_a_thread(program):
    """One look-up for `localhost` however many requests follow; one that fails, by the resolver's own error."""

    async def main():
        async with serving(Site()) as port, aiohttp.ClientSession(connector=connector()) as session:
            for _ in range(10):
                async with session.get(f"http://localhost:{port}/hello") as response:
                    assert response.status == 200
            with pytest.raises(aiohttp.ClientConnectorDNSError) as caught:
                await session.get("http://no-such-host.invalid/")
            return caught.value.os_error

    error = program.run(main())
    if figures := program.figures:
        assert figures.lookups.pop("") == 1
        assert sum(figures.lookups.values()) == 2
        assert all(name in ("", "EAI_NONAME", "EAI_AGAIN") for name in figures.lookups), error
        assert figures.jobs() == {"ok": 1, "error": 1}
        assert figures.connects("ipv4") == (1, 0)


def test_a_time_out(program):
    """The answer takes a minute, the client gives up after 0.3 s; the session goes on."""

    async def main():
        async with serving(Site()) as port, aiohttp.ClientSession(connector=connector()) as session:
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await session.get(f"http://127.0.0.1:{port}/late", timeout=aiohttp.ClientTimeout(total=0.3))
            took = time.monotonic() - began
            async with session.get(f"http://127.0.0.1:{port}/hello", params={"name": "again"}) as response:
                return took, await response.json()

    took, answer = program.run(main())
    assert took >= 0.3
    assert answer == {"hello": "again"}
    if figures := program.figures:
        assert figures.ran("timer") >= 1
        assert figures.state("idle") >= 0.2
        # Who gives up closes the connection: its answer could still come.
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (2, 2)


def test_a_connection_that_is_refused(program):
    """Nobody listens: three attempts that failed, and no transport."""

    async def main():
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
            async with aiohttp.ClientSession(connector=connector()) as session:
                for _ in range(3):
                    with pytest.raises(aiohttp.ClientConnectorError):
                        await session.get(url)

    program.run(main())
    if figures := program.figures:
        assert figures.connects("ipv4") == (0, 3)
        assert figures.total("asyncio.transport.opened") == 0


def test_websockets_of_aiohttp(program):
    """Fifty messages of 10 kB there and back."""
    n, message = 50, bytes(10_000)

    async def main():
        async with serving(Site()) as port, aiohttp.ClientSession(connector=connector()) as session:
            async with session.ws_connect(f"http://127.0.0.1:{port}/echo") as channel:
                answers = []
                for _ in range(n):
                    await channel.send_bytes(message)
                    answers.append(await channel.receive_bytes())
            return answers

    assert program.run(main()) == [message] * n
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * n
        for direction in ("read", "write"):
            assert 2 * n * len(message) < figures.transferred(direction, "tcp") < 2 * n * (len(message) + 14) + 4096
