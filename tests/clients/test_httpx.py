"""httpx against uvicorn with FastAPI, on one loop."""

import asyncio
import time
from contextlib import asynccontextmanager

import fastapi
import httpx
import pytest
import uvicorn
from fastapi.responses import PlainTextResponse, StreamingResponse

pytestmark = pytest.mark.clients

SIZE = 8 << 20
CHUNK = bytes(64 * 1024)


def application(peers: list) -> fastapi.FastAPI:
    """What the server answers; it notes which connections it was called on."""
    app = fastapi.FastAPI()

    @app.get("/hello")
    async def hello(request: fastapi.Request, name: str = "") -> dict[str, str]:
        peers.append(tuple(request.scope["client"]))
        return {"hello": name}

    @app.post("/upload")
    async def upload(request: fastapi.Request) -> PlainTextResponse:
        return PlainTextResponse(str(sum([len(chunk) async for chunk in request.stream()])))

    @app.get("/download")
    async def download() -> StreamingResponse:
        async def pieces():
            for _ in range(SIZE // len(CHUNK)):
                yield CHUNK

        return StreamingResponse(pieces())

    @app.get("/late")
    async def late(request: fastapi.Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @app.get("/threaded")
    def threaded() -> dict[str, float]:
        time.sleep(0.2)
        return {"slept": 0.2}

    return app


@asynccontextmanager
async def serving(peers: list | None = None):
    """A client of a server that listens on a free port."""
    config = uvicorn.Config(
        application([] if peers is None else peers), host="127.0.0.1", port=0, log_level="warning", lifespan="off",
        ws="none", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, limits=limits, timeout=30
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await task


def test_requests_on_one_connection(program):
    """A hundred requests one after another go over one connection that is kept: each is read on both sides."""
    n, peers = 100, []

    async def main():
        async with serving(peers) as client:
            return [(await client.get("/hello", params={"name": str(i)})).json()["hello"] for i in range(n)]

    assert program.run(main()) == [str(i) for i in range(n)]
    assert len(set(peers)) == 1
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * n
        assert figures.ran("task_step") >= n
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (1, 1)


def test_requests_at_once(program):
    """A hundred and fifty requests at once; each connection that the server saw is counted on both sides."""
    n, peers = 150, []

    async def main():
        async with serving(peers) as client:
            answers = await asyncio.gather(*(client.get("/hello", params={"name": str(i)}) for i in range(n)))
            return [answer.json()["hello"] for answer in answers]

    assert program.run(main()) == [str(i) for i in range(n)]
    assert 1 <= len(set(peers)) <= n
    if figures := program.figures:
        # Fifty at a time; on a busy machine the server closes some that were idle for long, and httpx opens others.
        assert len(set(peers)) <= figures.opened("tcp", "client") == figures.opened("tcp", "server") <= n


def test_streams_up_and_down(program):
    """8 MiB go up in pieces and 8 MiB come down."""

    async def pieces():
        for _ in range(SIZE // len(CHUNK)):
            yield CHUNK

    async def main():
        async with serving() as client:
            up = int((await client.post("/upload", content=pieces())).text)
            async with client.stream("GET", "/download") as response:
                down = sum([len(chunk) async for chunk in response.aiter_raw()])
            return up, down

    assert program.run(main()) == (SIZE, SIZE)
    if figures := program.figures:
        assert figures.ran("reader") >= 2 * SIZE / (256 * 1024)  # a transport reads 256 KiB at most
        # Each chunk has its length and two ends of lines; then there are heads, and the short answer.
        for direction in ("read", "write"):
            assert 2 * SIZE < figures.transferred(direction, "tcp") < 2 * SIZE + 2 * SIZE // len(CHUNK) * 16 + 4096


def test_a_time_out(program):
    """The answer comes when nobody waits any more: the client gives up after 0.3 s, and goes on."""

    async def main():
        async with serving() as client:
            began = time.monotonic()
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/late", timeout=0.3)
            took = time.monotonic() - began
            return took, (await client.get("/hello", params={"name": "again"})).json()

    took, answer = program.run(main())
    assert took >= 0.3
    assert answer == {"hello": "again"}
    if figures := program.figures:
        assert figures.ran("timer") >= 1
        assert figures.state("idle") >= 0.2
        # Who gives up closes the connection: its answer could still come.
        assert (figures.opened("tcp", "client"), figures.opened("tcp", "server")) == (2, 2)


def test_an_endpoint_in_a_thread(program):
    """A plain function sleeps in a thread of anyio's: the loop is woken from there, and was not blocked."""

    async def main():
        async with serving() as client:
            return await asyncio.gather(*(client.get("/threaded") for _ in range(5)))

    assert [answer.json() for answer in program.run(main())] == [{"slept": 0.2}] * 5
    if figures := program.figures:
        assert figures.ran("threadsafe") >= 5
        assert figures.jobs() == {}  # anyio's threads are its own
        assert figures.state("idle") >= 0.1


def test_a_name_is_looked_up_by_the_loop(program):
    """httpx leaves names to the loop, which asks for each new connection; a name that cannot be is an error."""

    async def main():
        async with serving() as client:
            answer = await client.get(client.base_url.copy_with(host="localhost").join("/hello"))
            with pytest.raises(httpx.ConnectError):
                await client.get("http://no-such-host.invalid/")
            return answer.json()

    assert program.run(main()) == {"hello": ""}
    if figures := program.figures:
        assert figures.lookups[""] == 1
        assert sum(figures.lookups.values()) == 2
        assert sum(figures.jobs().values()) == 2
        assert figures.connects("ipv4") == (1, 0)
