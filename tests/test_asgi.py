"""The ASGI middleware with a plain application, driven by hand: known amounts are put in and found again.

Time is a step clock's, so that the figures are exact on any machine. `test_asgi_servers.py` has the real servers.
"""

import asyncio
import logging
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from obsloop.asgi import Middleware

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"done"}
PREFIX = "asyncio.task."


@pytest.fixture
def spans():
    """A tracer of the SDK, and what it has exported."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests"), exporter
    provider.shutdown()


@pytest.fixture
def nothing_told(monkeypatch):
    """As if nothing had been logged yet."""
    monkeypatch.setattr("obsloop.base.log._logged", set())


async def request(app, sent, scope=None):
    """One request, as a server hands it in; `sent` gets what comes back."""

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    return await app(scope or {"type": "http"}, receive, send)


def timing(sent):
    """Running, waiting, suspended in milliseconds, of the only header of ours in what was sent."""
    (start,) = (message for message in sent if message["type"] == "http.response.start")
    (value,) = (value for name, value in start["headers"] if name == b"server-timing" and value.startswith(b"loop;"))
    running, waiting, suspended = value.decode().split(", ")
    assert running.startswith("loop;dur=")
    assert running.endswith(';desc="running"')
    assert waiting.startswith("wait;dur=")
    assert suspended.startswith("suspended;dur=")
    return float(running[9:].split(";")[0]), float(waiting[9:]), float(suspended[14:])


def attributes(span):
    """Ours, without the prefix, the times in milliseconds."""
    found = {key.removeprefix(PREFIX): value for key, value in span.attributes.items() if key.startswith(PREFIX)}
    return {key: value if key == "steps" else round(value * 1e3, 6) for key, value in found.items()}


def application(clock):
    """50 ms in an inner task, 100 ms ready behind another task, 80 ms suspended; then the answer."""

    async def inner():
        clock.advance(0.05)

    async def app(scope, receive, send):
        await asyncio.create_task(inner())
        mine = asyncio.get_running_loop().create_future()
        scope["neighbour"].set_result(mine)
        await mine
        await asyncio.sleep(0.08)
        await send(START)
        await send(BODY)

    return app


async def neighbour(clock, asked):
    """Somebody else on the loop: answers, and keeps the loop for 100 ms before the one who asked has the answer."""
    (await asked).set_result(None)
    clock.advance(0.1)


def test_what_a_request_waited_for_is_found_in_the_header(stepped):
    """50 ms running in an inner task, 100 ms waiting for the loop, 80 ms suspended, and those of the inner task."""
    clock, loop = stepped
    sent = []

    async def main():
        asked = loop.create_future()
        other = asyncio.create_task(neighbour(clock, asked))
        await request(Middleware(application(clock), server_timing=True), sent, {"type": "http", "neighbour": asked})
        await other

    loop.run_until_complete(main())
    assert timing(sent) == (50.0, 100.0, 130.0)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["headers"][:-1] == START["headers"]
    assert len(START["headers"]) == 1  # the application's own message is not changed


def test_the_same_on_the_span_that_is_current(stepped, spans):
    """The span that was current around the middleware gets the attributes, whatever spans the application begins."""
    clock, loop = stepped
    tracer, exporter = spans
    app = application(clock)

    async def with_a_span_of_its_own(scope, receive, send):
        with tracer.start_as_current_span("inner"):
            await app(scope, receive, send)
        clock.advance(0.007)  # after the response: known at the end only

    async def main():
        asked = loop.create_future()
        other = asyncio.create_task(neighbour(clock, asked))
        with tracer.start_as_current_span("request"):
            await request(Middleware(with_a_span_of_its_own), [], {"type": "http", "neighbour": asked})
        await other

    loop.run_until_complete(main())
    found = {span.name: attributes(span) for span in exporter.get_finished_spans()}
    # Steps: the request's, which awaits three times, and the inner task's only one.
    assert found == {
        "inner": {},
        "request": {"running": 57.0, "waiting": 100.0, "suspended": 130.0, "steps": 5},
    }


@pytest.mark.parametrize(
    ("messages", "ended_by"),
    [
        ([START, BODY], 1),
        ([START, BODY | {"more_body": True}, BODY | {"more_body": True}, BODY], 3),
        ([START | {"trailers": True}, BODY, {"type": "http.response.trailers", "headers": []}], 2),
        ([START, {"type": "http.response.pathsend", "path": "/"}], 1),
    ],
    ids=["body", "stream", "trailers", "pathsend"],
)
def test_a_span_that_ends_with_the_response_has_them_already(stepped, spans, messages, ended_by):
    """As OpenTelemetry's instrumentations end it: with the last message. What came until then is on it."""
    clock, loop = stepped
    tracer, exporter = spans
    span = tracer.start_span("request")

    async def app(scope, receive, send):
        for message in messages:
            clock.advance(0.01)
            await send(message)
        await asyncio.sleep(1)

    async def main():
        from opentelemetry import trace

        n = 0

        async def send(message):
            nonlocal n
            if n == ended_by:
                span.end()
            n += 1

        with trace.use_span(span):
            await Middleware(app)({"type": "http"}, None, send)

    loop.run_until_complete(main())
    (ended,) = exporter.get_finished_spans()
    assert attributes(ended) == {"running": 10.0 * len(messages), "waiting": 0, "suspended": 0, "steps": 1}


def test_a_header_of_the_application_is_kept(stepped):
    """Ours comes after it: clients join headers of one name."""
    _, loop = stepped
    sent = []

    async def app(scope, receive, send):
        await send(START | {"headers": [(b"Server-Timing", b"db;dur=5")]})
        await send(BODY)

    loop.run_until_complete(request(Middleware(app, server_timing=True), sent))
    assert sent[0]["headers"][0] == (b"Server-Timing", b"db;dur=5")
    assert timing(sent) == (0, 0, 0)


def test_without_headers_there_is_ours(stepped):
    """They are optional in ASGI."""
    _, loop = stepped
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})

    loop.run_until_complete(request(Middleware(app, server_timing=True), sent))
    assert timing(sent) == (0, 0, 0)


@pytest.mark.parametrize(
    ("server_timing", "expected"), [(False, []), (lambda scope: scope.get("path") == "/b", ["/b"])]
)
def test_the_header_is_there_on_request(stepped, server_timing, expected):
    """Not by default; a function of the scope decides for each request."""
    _, loop = stepped
    seen = []

    async def app(scope, receive, send):
        await send(START)
        await send(BODY)

    async def main():
        for path in ("/a", "/b"):
            sent = []
            await request(Middleware(app, server_timing=server_timing), sent, {"type": "http", "path": path})
            seen.extend([path] if len(sent[0]["headers"]) > 1 else [])
            assert sent[1] is BODY

    loop.run_until_complete(main())
    assert seen == expected


def test_requests_at_once_have_each_their_own(stepped):
    """Three that run for 10, 20 and 30 ms between each other's steps."""
    clock, loop = stepped
    answers = [[], [], []]

    async def app(scope, receive, send):
        await asyncio.sleep(0.5)
        clock.advance(scope["work"])
        await asyncio.sleep(0.5)
        await send(START)

    async def main():
        wrapped = Middleware(app, server_timing=True)
        await asyncio.gather(
            *(request(wrapped, sent, {"type": "http", "work": (i + 1) / 100}) for i, sent in enumerate(answers))
        )

    loop.run_until_complete(main())
    assert [timing(sent)[0] for sent in answers] == [10.0, 20.0, 30.0]
    assert [timing(sent)[1] for sent in answers] == [0.0, 10.0, 30.0]  # behind those before it


def test_what_outlives_the_request_is_not_counted(stepped, spans):
    """An inner task works for 20 ms while the request is there, and for 500 ms afterwards, which it can."""
    clock, loop = stepped
    tracer, exporter = spans
    left = []

    async def background():
        clock.advance(0.02)
        await asyncio.sleep(1)
        clock.advance(0.5)
        return "done"

    async def app(scope, receive, send):
        left.append(asyncio.create_task(background()))
        await asyncio.sleep(0.1)
        await send(START)
        await send(BODY)

    async def main():
        with tracer.start_as_current_span("request"):
            await request(Middleware(app), [])
        return await left[0]

    assert loop.run_until_complete(main()) == "done"
    (span,) = exporter.get_finished_spans()
    assert attributes(span)["running"] == 20.0


def test_an_inner_task_may_answer(stepped):
    """As frameworks do that stream: what that task has run for so far is in the header."""
    clock, loop = stepped
    sent = []

    async def app(scope, receive, send):
        async def answer():
            clock.advance(0.03)
            await send(START)
            await send(BODY)

        await asyncio.create_task(answer())

    loop.run_until_complete(request(Middleware(app, server_timing=True), sent))
    assert timing(sent)[0] == 30.0


@pytest.mark.parametrize("ending", ["error", "cancelled"])
def test_what_ends_the_application_goes_through(stepped, spans, ending):
    """An error and a cancellation are the application's own, and the span has what came before."""
    clock, loop = stepped
    tracer, exporter = spans
    error = ValueError("of the application")

    async def app(scope, receive, send):
        clock.advance(0.04)
        if ending == "error":
            raise error
        await asyncio.sleep(3600)

    async def main():
        with tracer.start_as_current_span("request"):
            async with asyncio.timeout(0.06):
                await request(Middleware(app), [])

    with pytest.raises(ValueError if ending == "error" else TimeoutError) as raised:
        loop.run_until_complete(main())
    assert ending == "cancelled" or raised.value is error
    (span,) = exporter.get_finished_spans()
    suspended = 0 if ending == "error" else 20.0
    assert attributes(span) == {"running": 40.0, "waiting": 0, "suspended": suspended, "steps": 1 + (suspended > 0)}


def test_a_websocket_gets_attributes_only(stepped, spans):
    """And its messages go through as they are; so does all of a lifespan."""
    clock, loop = stepped
    tracer, exporter = spans
    messages = [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "hello"}]

    async def app(scope, receive, send):
        clock.advance(0.03)
        for message in messages:
            await send(message)
        return send

    async def main():
        for kind in ("websocket", "lifespan"):
            sent = []
            with tracer.start_as_current_span(kind):
                await request(Middleware(app, server_timing=True), sent, {"type": kind})
            assert all(ours is theirs for ours, theirs in zip(sent, messages, strict=True))

    loop.run_until_complete(main())
    found = {span.name: attributes(span) for span in exporter.get_finished_spans()}
    assert found == {"websocket": {"running": 30.0, "waiting": 0, "suspended": 0, "steps": 1}, "lifespan": {}}


def test_a_loop_that_is_not_observed_runs_the_application(caplog, nothing_told):
    """It gets the server's own callables, and one line says why there are no figures."""

    async def app(scope, receive, send):
        await send(START)
        return scope, receive, send

    async def main():
        scope, sent = {"type": "http"}, []

        async def send(message):
            sent.append(message)

        for _ in range(3):
            assert await Middleware(app, server_timing=True)(scope, main, send) == (scope, main, send)
        assert sent == [START] * 3

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    (line,) = (record for record in caplog.records if "Middleware" in record.getMessage())
    assert (line.name, line.levelno, bool(line.exc_info)) == ("obsloop", logging.WARNING, False)
    assert "obsloop.new_event_loop" in line.message


def test_a_function_that_cannot_decide_means_no_header(stepped, caplog, nothing_told):
    """The program's error is said once, and the answers go out."""
    _, loop = stepped
    sent = []

    async def app(scope, receive, send):
        await send(START)

    async def main():
        for _ in range(3):
            await request(Middleware(app, server_timing=lambda scope: scope["missing"]), sent)

    loop.run_until_complete(main())
    assert sent == [START] * 3
    (line,) = caplog.records
    assert "server_timing(scope) raised KeyError" in line.message


def test_a_span_that_raises_harms_nobody(stepped, caplog, monkeypatch):
    """An OpenTelemetry of somebody's own: one line, and the response is whole."""
    monkeypatch.setattr("obsloop.base.log._logged", set())
    _, loop = stepped
    sent = []

    class Trace:
        def get_current_span(self):
            return self

        def is_recording(self):
            return True

        def set_attributes(self, values):
            raise OSError("no")

    monkeypatch.setitem(sys.modules, "opentelemetry.trace", Trace())

    async def app(scope, receive, send):
        await send(START)
        await send(BODY)

    async def main():
        for _ in range(2):
            await request(Middleware(app), sent)

    loop.run_until_complete(main())
    assert sent == [START, BODY] * 2
    assert {line.name for line in caplog.records} == {"obsloop"}
    assert len(caplog.records) == 2  # with the last message, and at the end: once for each place


def test_an_option_that_is_none(stepped):
    """The error says what is accepted."""
    with pytest.raises(TypeError, match="True, False, or a callable that takes the scope"):
        Middleware(application(None), server_timing="yes")


def test_a_request_that_is_thrown_away(stepped, caplog):
    """Its coroutine is closed by somebody else than its task: nothing is said, nothing is raised."""
    _, loop = stepped
    ended = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(scope["type"])

    async def main():
        coroutine = request(Middleware(app), [])
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0)
        coroutine.close()
        task.cancel()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await task

    loop.run_until_complete(main())
    assert ended == ["http"]
    assert caplog.records == []
