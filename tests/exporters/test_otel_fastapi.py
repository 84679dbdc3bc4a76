"""A FastAPI application as users start it, `opentelemetry-instrument uvicorn app:app`, whose requests block the loop.

With OpenTelemetry's own FastAPI, asyncio and threading instrumentations. What is asserted arrived at a real receiver.
"""

import http.client
import json
import shutil
import socket
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.exporters.otlp import HttpReceiver, receiving
from tests.exporters.traces import spans_of, started, tree, until

pytestmark = pytest.mark.clients

BLOCK = 0.3
APP = f"""
    import asyncio
    import contextlib
    import time

    from fastapi import FastAPI


    @contextlib.asynccontextmanager
    async def lifespan(app):
        # More than a busy machine takes for what is healthy.
        asyncio.get_running_loop().slow_callback_duration = {BLOCK} * 0.8
        yield


    app = FastAPI(lifespan=lifespan)


    @app.get("/healthy/{{n}}")
    async def healthy(n: int):
        await asyncio.sleep(0.05)
        return asyncio.get_running_loop().__class__.__module__


    @app.get("/blocks/{{n}}")
    async def blocks(n: int):
        time.sleep({BLOCK})
        return n


    @app.post("/blocks_later")
    async def blocks_later(body: dict):
        await asyncio.sleep(0.01)
        time.sleep({BLOCK})
        return body


    @app.get("/hands_over")
    async def hands_over():
        return await asyncio.to_thread(work)


    def work():
        time.sleep({BLOCK})
        raise RuntimeError("as it was told to")
"""
TELL = {
    "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "openapi.json",
}  # fmt: skip


def ask(port: int, path: str, body: dict | None = None) -> tuple[int, str]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def free_port() -> int:
    """One where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def beside(name: str) -> str:
    """A command of this environment's."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


@pytest.mark.parametrize("disabled", ["", "obsloop"])
def test_a_blocked_requests_trace_shows_the_slow_callback(tmp_path, disabled):
    """Twelve requests at once, three of which block: those have the callback beneath them, and no other has one."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    port = free_port()
    command = [
        beside("opentelemetry-instrument"),
        beside("uvicorn"),
        "app:app",
        "--loop",
        "asyncio",
        "--port",
        str(port),
    ]
    with receiving(HttpReceiver) as receiver:
        tell = TELL | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled}
        with started(command, tmp_path, PATH=str(Path(sys.executable).parent), **tell) as process:
            until(lambda: answers(port) or process.poll() is not None, "uvicorn listens")
            with ThreadPoolExecutor(12) as pool:
                asked = [pool.submit(ask, port, f"/healthy/{n}") for n in range(9)]
                asked += [pool.submit(ask, port, f"/blocks/{n}") for n in range(2)]
                asked.append(pool.submit(ask, port, "/blocks_later", {"some": "thing"}))
                found = [one.result() for one in asked]
            assert [status for status, _ in found] == [200] * 12
            assert ask(port, "/hands_over")[0] == 500
            until(lambda: sum(span.name == "GET /hands_over" for span in spans_of(receiver)), "the last trace is there")
            # Metrics come by the way: the next ones that arrive know of all this.
            receiver.wait_for(len(receiver.requests) + 2)
    spans = spans_of(receiver)
    scopes = {
        one.scope.name for request in receiver.requests for r in request.resource_metrics for one in r.scope_metrics
    }
    if disabled:
        assert json.loads(found[0][1]) == "asyncio.unix_events" or "uvloop" in found[0][1]
        assert "obsloop" not in {span.scope for span in spans} | scopes
        return
    assert json.loads(found[0][1]) == "obsloop.loop.loop"
    assert "obsloop" in scopes
    requests = {name: below for name, below in tree(spans).items() if name.startswith(("GET", "POST"))}
    assert len(requests) == 13
    for name, below in requests.items():
        ours = [one for one in below if one.startswith("asyncio")]
        if "/blocks" in name:
            assert len(ours) == 1, (name, below)
            assert ours[0].startswith("asyncio callback "), below
        elif "/hands_over" in name:
            assert ours == ["asyncio executor app.work"]
        else:
            assert ours == [], (name, below)
    by_id = {span.id: span for span in spans}
    callbacks = [span for span in spans if span.name.startswith("asyncio callback")]
    for span in callbacks:
        request = by_id.get(span.parent)
        if request is None or request.scope == "obsloop":
            continue  # not a request's: a slow start of the application
        assert BLOCK <= span.seconds < BLOCK + 5
        assert request.start_ns <= span.start_ns
        assert span.trace == request.trace
        assert span.attributes["asyncio.eventloop.block.cause"] in ("syscall", "off_cpu", "unknown", "gil")  # it slept
        assert any("in blocks" in event.get("code.stacktrace", "") for _, _, event in span.events)
    (job,) = [span for span in spans if span.name == "asyncio executor app.work"]
    assert (job.status, job.attributes["error.type"]) == (2, "RuntimeError")
    assert job.seconds >= BLOCK
