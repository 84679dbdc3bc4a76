"""What the tests of spans share: a program that sends them to a real receiver, and its trees read back from there."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import obsloop
from obsloop_exporters import otel_spans
from tests.exporters.otlp import GrpcReceiver, HttpReceiver, Receiver, receiving

LIMIT = 60.0
MS = 1_000_000
EVERYTHING = obsloop.SpanSettings(slow_job=0, slow_connection=0)

Tree = dict[str, Any]


class Span(NamedTuple):
    """One span, as it arrived."""

    scope: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    """Empty where it has none."""
    start_ns: int
    end_ns: int
    kind: int
    status: int
    """0 unset, 1 ok, 2 error."""
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    links: list[bytes]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e9


class Traced:
    """A provider that sends to a receiver, and what has arrived there."""

    def __init__(self, receiver: Receiver, provider: TracerProvider) -> None:
        self.receiver, self.provider = receiver, provider
        self.tracer = provider.get_tracer("program")

    @property
    def all(self) -> list[Span]:
        """Every span so far."""
        self.provider.force_flush()
        return spans_of(self.receiver)

    def spans(self, prefix: str = "") -> list[Span]:
        """Those of obsloop's whose name begins so."""
        return [span for span in self.all if span.scope == "obsloop" and span.name.startswith(prefix)]

    def one(self, prefix: str) -> Span:
        """The only one of those."""
        (span,) = self.spans(prefix)
        return span

    def named(self, name: str) -> Span:
        """The only span of that name, whoever made it."""
        (span,) = [span for span in self.all if span.name == name]
        return span


@contextmanager
def traced(
    wire: str = "http", settings: obsloop.SpanSettings = EVERYTHING, install: bool = True, **kwargs: Any
) -> Iterator[Traced]:
    """A provider of its own, given obsloop's spans, and its receiver; gone afterwards."""
    with receiving(HttpReceiver if wire == "http" else GrpcReceiver) as receiver:
        provider = TracerProvider(shutdown_on_exit=False, **kwargs)
        provider.add_span_processor(BatchSpanProcessor(exporter_for(wire, receiver)))
        if install:
            otel_spans.install(provider, settings=settings)
        try:
            yield Traced(receiver, provider)
        finally:
            otel_spans.uninstall(provider)
            provider.shutdown()


def exporter_for(wire: str, receiver: Any) -> Any:
    """OpenTelemetry's own exporter, to that receiver."""
    if wire == "http":
        return OTLPSpanExporter(f"{receiver.base}/v1/traces")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter(receiver.endpoint, insecure=True)


def spans_of(receiver: Receiver) -> list[Span]:
    """All that a receiver has."""
    return [
        Span(
            one.scope.name, span.name, span.trace_id, span.span_id, span.parent_span_id, span.start_time_unix_nano,
            span.end_time_unix_nano, span.kind, span.status.code, values(span.attributes),
            [(event.name, event.time_unix_nano, values(event.attributes)) for event in span.events],
            [link.span_id for link in span.links],
        )
        for request in list(receiver.traces)
        for resource in request.resource_spans
        for one in resource.scope_spans
        for span in one.spans
    ]  # fmt: skip


def values(attributes: Iterable[Any]) -> dict[str, Any]:
    """Attributes as Python has them."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def tree(spans: list[Span], parent: bytes = b"") -> Tree:
    """Names, and what is beneath each, in the order of their beginnings; a name that comes again has a number."""
    found: Tree = {}
    for span in sorted((span for span in spans if span.parent == parent), key=lambda span: span.start_ns):
        same = sum(1 for name in found if name.partition(" #")[0] == span.name)
        found[f"{span.name} #{same + 1}" if same else span.name] = tree(spans, span.id)
    return found


@contextmanager
def started(command: list[str], folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A program as a user starts it, in `folder`; ended afterwards, as a terminal does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "OBSLOOP_")) or k == "OBSLOOP_PURE"}
    process = subprocess.Popen(
        command, cwd=folder, env=kept | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=LIMIT)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()


def until(condition: Callable[[], Any], what: str, seconds: float = LIMIT) -> Any:
    """What it returns, as soon as that is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
    return found
