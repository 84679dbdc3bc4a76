"""Which route blocks the loop, and what each route takes of it: FastAPI under uvicorn, and applications by hand."""

import asyncio
import gc
import time
import weakref

import fastapi
import pytest

import obsloop
from obsloop.asgi import Middleware
from obsloop.introspect import routes
from obsloop.metrics.catalog import MAX_ROUTES, OTHER
from obsloop.testing import Recorder
from tests.test_asgi import BODY, START, request
from tests.test_asgi_servers import serving

BLOCK = 0.2


def shop(recorder: Recorder) -> fastapi.FastAPI:
    """A route that blocks until the watchdog has seen it, one that waits, and one in a router with a prefix."""
    app = fastapi.FastAPI()
    app.add_middleware(Middleware)
    router = fastapi.APIRouter(prefix="/v1")

    @app.get("/orders/{number}")
    async def order(number: int) -> int:
        seen, end = len(recorder.blocked), time.monotonic() + BLOCK
        while time.monotonic() < end or len(recorder.blocked) == seen:
            time.sleep(0.01)
        return number

    @router.get("/slow/{name}")
    async def slow(name: str) -> str:
        await asyncio.sleep(0.1)
        return name

    app.include_router(router)
    return app


def test_a_block_has_the_route_of_its_request():
    """On the events; and each route has its requests and its seconds, whatever the parameters are."""
    with Recorder() as events:

        async def main() -> None:
            async with serving(shop(events)) as client:
                for path in ("/orders/1", "/orders/2", "/v1/slow/a", "/v1/slow/b", "/v1/slow/c", "/nothing/here"):
                    await client.get(path)

        obsloop.run(main(), settings=obsloop.Settings(name="routes"))
        slow = [event for event in events.slow_callbacks if event.culprit_function.endswith(".order")]
    assert [event.http_route for event in slow] == ["/orders/{number}"] * 2
    snapshot = obsloop.snapshots()["routes"]
    counts = {route: n for (route,), n in snapshot["asyncio.request.count"].items()}
    assert counts == {"/orders/{number}": 2, "/v1/slow/{name}": 3, "(none)": 1}
    times = snapshot["asyncio.request.time"]
    assert times["/orders/{number}", "running"] >= 2 * BLOCK
    assert times["/v1/slow/{name}", "suspended"] >= 0.29  # a timer may be early by the clock's grain
    assert times["/v1/slow/{name}", "running"] < times["/orders/{number}", "running"]


def test_known_times_are_counted_by_route(stepped):
    """A step clock: running, waiting and suspended of two requests of one route add up to the nanosecond."""
    clock, loop = stepped

    async def app(scope, receive, send):
        scope["path_template"] = "/known/{x:int}"  # as Litestar says it
        clock.advance(0.05)
        await asyncio.sleep(0.08)
        await send(START)
        await send(BODY)

    async def main():
        for _ in range(2):
            await request(Middleware(app), [], {"type": "http"})

    loop.run_until_complete(main())
    snapshot = loop.snapshot()
    assert snapshot["asyncio.request.count"]["/known/{x:int}",] == 2
    times = {state: s for (_, state), s in snapshot["asyncio.request.time"].items()}
    assert times == pytest.approx({"running": 0.1, "waiting": 0.0, "suspended": 0.16})


def test_a_callback_that_no_sample_saw_has_its_route_too(stepped):
    """A plain callback that a request scheduled runs in the request's context."""
    clock, loop = stepped

    async def app(scope, receive, send):
        scope["path_template"] = "/later"
        loop.call_soon(clock.advance, 0.2)
        await asyncio.sleep(0.01)

    with Recorder() as events:
        loop.run_until_complete(request(Middleware(app), [], {"type": "http"}))
    assert [event.http_route for event in events.slow_callbacks] == ["/later"]


def test_without_the_middleware_nothing_is_guessed(stepped):
    """No route on events, and no series."""
    clock, loop = stepped

    async def app(scope, receive, send):
        clock.advance(0.2)

    with Recorder() as events:
        loop.run_until_complete(request(app, [], {"type": "http", "path_template": "/known"}))
    assert [event.http_route for event in events.slow_callbacks] == [""]
    assert loop.snapshot()["asyncio.request.count"] == {}


def test_routes_are_bounded(stepped, clean_metrics):
    """A hundred, and then ``_OTHER``."""
    _, loop = stepped

    async def main():
        for i in range(MAX_ROUTES + 5):

            async def app(scope, receive, send, i=i):
                scope["path_template"] = f"/{i}"

            await request(Middleware(app), [], {"type": "http"})

    loop.run_until_complete(main())
    counts = loop.snapshot()["asyncio.request.count"]
    assert len(counts) == MAX_ROUTES + 1
    assert counts[OTHER,] == 5


def test_a_task_that_outlives_its_request_does_not_keep_the_scope(stepped):
    """It keeps the context, and in it the route's name, but not the scope with the application's objects."""
    _, loop = stepped

    class Scope(dict):
        """A scope that can be watched."""

    async def app(scope, receive, send):
        scope["path_template"] = "/left"
        left.append(asyncio.create_task(asyncio.sleep(60)))

    async def main():
        scope = Scope(type="http")
        ref = weakref.ref(scope)
        await request(Middleware(app), [], scope)
        del scope
        await asyncio.sleep(0)
        gc.collect()
        assert ref() is None
        left[0].cancel()

    left: list[asyncio.Task] = []
    loop.run_until_complete(main())


def test_a_scope_that_is_strange_has_no_route():
    """No route, a route without a path, a path that is no string, a mapping that is no dictionary."""

    class Route:
        path = property(lambda self: 1 / 0)

    for scope in ({}, {"route": None}, {"route": object()}, {"route": Route()}, {"path_template": 7}, None):
        assert routes.Request(scope).route() == ""
