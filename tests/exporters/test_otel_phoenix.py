"""A trace store that others wrote, Arize Phoenix: the program's spans and ours are sent to it and read back from it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import obsloop
from obsloop_exporters import otel_spans
from tests.exporters.traces import EVERYTHING, LIMIT, until

pytestmark = pytest.mark.clients

PHOENIX = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"
BLOCK = 0.2


class Store:
    """A running Phoenix."""

    def __init__(self, http: int, grpc: int) -> None:
        self.http, self.grpc = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}"

    def get(self, path: str) -> Any:
        """What it answers; None while it does not, or knows nothing of it."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=LIMIT) as answer:
                return json.loads(answer.read())["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def spans(self, project: str, number: int) -> list[dict[str, Any]]:
        """All of a project's, as soon as there are so many."""
        path = f"/v1/projects/{project}/spans?limit=1000"
        return until(lambda: len(found := self.get(path) or []) >= number and found, f"{number} spans in Phoenix")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    """One on loopback, with a database of its own, gone afterwards."""
    assert PHOENIX.exists(), f"{PHOENIX} is missing: `make test` installs it, or python3 tools/phoenix.py"
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as grpc:
        found = Store(http.getsockname()[1], grpc.getsockname()[1])
    folder = tmp_path_factory.mktemp("phoenix")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "OBSLOOP_", "PHOENIX_", "PYTHON"))}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [PHOENIX, "serve"],
            env=kept
            | {
                "PHOENIX_WORKING_DIR": str(folder), "PHOENIX_HOST": "127.0.0.1",
                "PHOENIX_PORT": found.http.rpartition(":")[2], "PHOENIX_GRPC_PORT": found.grpc.rpartition(":")[2],
                "PHOENIX_TELEMETRY_ENABLED": "false",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: found.get("/v1/projects") is not None or process.poll() is not None, "Phoenix answers", 240)
        assert process.poll() is None, (folder / "log").read_text()
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def send(store: Store, wire: str, project: str) -> TracerProvider:
    """A provider that sends to it."""
    if wire == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter: Any = OTLPSpanExporter(f"{store.http}/v1/traces")
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        exporter = GrpcExporter(store.grpc, insecure=True)
    provider = TracerProvider(resource=Resource({"openinference.project.name": project}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def tree(spans: list[dict[str, Any]], parent: str | None = None) -> dict[str, Any]:
    """Names, and what is beneath each."""
    beneath = sorted((span for span in spans if span["parent_id"] == parent), key=lambda span: span["start_time"])
    return {span["name"]: tree(spans, span["context"]["span_id"]) for span in beneath}


def seconds(span: dict[str, Any]) -> float:
    """How long it took, as the store has it."""
    start, end = (datetime.fromisoformat(span[key]) for key in ("start_time", "end_time"))
    return (end - start).total_seconds()


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_the_tree_read_back_is_the_programs_structure(store, wire):
    """Two orders at once, each with a failing job, a connection, a block and a child: names, times, status, events."""
    project = f"over-{wire}"
    provider = send(store, wire, project)
    tracer = provider.get_tracer("program")
    otel_spans.install(provider, settings=EVERYTHING)

    def pay() -> None:
        with tracer.start_as_current_span("pay"):
            time.sleep(BLOCK)
            raise PermissionError

    async def order(n: int, port: int) -> None:
        with tracer.start_as_current_span(f"order {n}"):
            with pytest.raises(PermissionError):
                await asyncio.to_thread(pay)
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await asyncio.sleep(0.3 * n)
            time.sleep(4 * BLOCK)  # time enough for the watchdog to see it, on a busy machine too
            await asyncio.sleep(0)
            await (await asyncio.create_subprocess_exec("sleep", str(BLOCK))).wait()

    async def main() -> int:
        asyncio.get_running_loop().slow_callback_duration = 0.9 * BLOCK  # on a busy machine a fork takes 0.1 s
        await asyncio.sleep(0.15)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(order(1, port), order(2, port))
        server.close()
        return port

    try:
        port = obsloop.run(main())
    finally:
        otel_spans.uninstall(provider)
        provider.shutdown()

    spans = store.spans(project, 14)
    here = f"{__name__}.{test_the_tree_read_back_is_the_programs_structure.__name__}.<locals>"
    beneath = {
        f"asyncio executor {here}.pay": {},
        "pay": {},
        f"asyncio connection_setup 127.0.0.1:{port}": {f"socket connect 127.0.0.1:{port}": {}},
        f"asyncio callback {here}.order": {},
        "sleep": {},
    }
    assert tree(spans) == {"order 1": beneath, "order 2": beneath}
    assert len({span["context"]["trace_id"] for span in spans}) == 2
    for span in spans:
        if span["name"].startswith(("asyncio executor", "asyncio callback", "sleep", "pay")):
            assert BLOCK - 1e-5 <= seconds(span) < BLOCK + 5, span["name"]
        failed = span["name"] == "pay" or span["name"].startswith("asyncio executor")
        assert span["status_code"] == ("ERROR" if failed else "UNSET"), span["name"]
    jobs = [span for span in spans if span["name"].startswith("asyncio executor")]
    assert [span["attributes"]["error.type"] for span in jobs] == ["PermissionError"] * 2
    assert [[event["name"] for event in span["events"]] for span in jobs] == [["started"]] * 2
    for span in spans:
        if span["name"].startswith("asyncio callback"):
            assert span["attributes"]["code.file.path"] == __file__
            assert all("in order" in event["attributes"]["code.stacktrace"] for event in span["events"])
            assert span["events"]
