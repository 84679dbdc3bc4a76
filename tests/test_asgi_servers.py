"""The ASGI middleware in FastAPI under uvicorn, asked by httpx: sockets, threads of nobody's, and a real clock."""

import asyncio
import time
from contextlib import asynccontextmanager

import fastapi
import httpx
import pytest
import uvicorn
from fastapi.responses import PlainTextResponse, StreamingResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import obsloop
from obsloop.asgi import Middleware

from .test_asgi import PREFIX, timing

ROOM = 0.5  # for a busy machine


def application() -> fastapi.FastAPI:
    """An endpoint that runs for 50 ms in an inner task, waits for the loop for 100 ms, and sleeps for 80 ms."""
    app = fastapi.FastAPI()
    app.add_middleware(Middleware, server_timing=True)

    async def inner() -> None:
        time.sleep(0.05)

    @app.get("/known")
    async def known() -> None:
        await asyncio.create_task(inner())
        mine = asyncio.get_running_loop().create_future()
        app.state.asked.put_nowait(mine)
        await mine
        await asyncio.sleep(0.08)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces():
            for _ in range(3):
                time.sleep(0.02)
                yield b"piece"

        return StreamingResponse(pieces())

    @app.get("/background")
    async def background(tasks: fastapi.BackgroundTasks) -> PlainTextResponse:
        tasks.add_task(asyncio.sleep, 0.1)
        return PlainTextResponse("at once")

    @app.get("/failing")
    async def failing() -> None:
        time.sleep(0.02)
        raise LookupError("of the application")

    return app


@asynccontextmanager
async def serving(app: fastapi.FastAPI):
    """A client of a server that listens on a free port; and the neighbour, a task that is no request's."""
    app.state.asked = asyncio.Queue()

    async def neighbour() -> None:
        while True:
            (await app.state.asked.get()).set_result(None)
            time.sleep(0.1)

    other = asyncio.create_task(neighbour())
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            yield client
    finally:
        other.cancel()
        server.should_exit = True
        await task


def figures(response: httpx.Response) -> tuple[float, float, float]:
    """Running, waiting and suspended in seconds, of the response's header."""
    headers = [(b"server-timing", response.headers["server-timing"].encode())]
    running, waiting, suspended = timing([{"type": "http.response.start", "headers": headers}])
    return running / 1e3, waiting / 1e3, suspended / 1e3


def test_the_header_that_a_client_gets():
    """What was put in, in the right place: not less, and not more than a busy machine may add."""

    async def main():
        async with serving(application()) as client:
            return await client.get("/known")

    response = obsloop.run(main())
    assert response.status_code == 200
    running, waiting, suspended = figures(response)
    assert 0.05 <= running + 1e-4 < 0.05 + ROOM
    assert 0.1 <= waiting + 1e-4 < 0.1 + ROOM
    assert (
        0.13 <= suspended + 2e-3 < 0.13 + ROOM
    )  # the inner task's time too; a timer may be early by the clock's grain


def test_requests_at_once():
    """Five of them wait behind each other's inner tasks and the neighbour, and none has another's running time."""

    async def main():
        async with serving(application()) as client:
            return await asyncio.gather(*(client.get("/known") for _ in range(5)))

    for response in obsloop.run(main()):
        running, waiting, _ = figures(response)
        assert 0.05 <= running + 1e-4 < 0.25
        assert waiting + 1e-4 >= 0.1


@pytest.mark.clients
def test_the_span_of_opentelemetrys_instrumentation():
    """It is ended with the response: by then our attributes are on it, of a stream and of an error as well."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = application()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=["send", "receive"])

    async def main():
        async with serving(app) as client:
            return [(await client.get(path)).status_code for path in ("/known", "/stream", "/background", "/failing")]

    try:
        assert obsloop.run(main()) == [200, 200, 200, 500]
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
        provider.shutdown()
    found = {
        span.name: {key.removeprefix(PREFIX): value for key, value in span.attributes.items() if PREFIX in key}
        for span in exporter.get_finished_spans()
    }
    assert set(found) >= {"GET /known", "GET /stream", "GET /background", "GET /failing"}
    assert 0.05 <= found["GET /known"]["running"] < 0.05 + ROOM
    assert 0.1 <= found["GET /known"]["waiting"] < 0.1 + ROOM
    assert 0.128 <= found["GET /known"]["suspended"] < 0.13 + ROOM
    assert 0.06 <= found["GET /stream"]["running"] < 0.06 + ROOM
    assert 0.02 <= found["GET /failing"]["running"] < 0.02 + ROOM
    assert found["GET /background"]["steps"] >= 1
