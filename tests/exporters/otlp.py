"""Receivers of OTLP on loopback: they keep what they got, and can be down, slow or refuse, when they are told to.

What was received is looked at as protobuf has it, by metric's name and attributes.
"""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PATHS: dict[str, tuple[Any, Any]] = {
    "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
}

Series = dict[str, dict[frozenset[tuple[str, str]], Any]]


class Receiver:
    """What both have: what was received, how to behave, and how many were turned away."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.traces: list[ExportTraceServiceRequest] = []
        self.behaviour = "ok"
        """`ok`, `unavailable` (503, UNAVAILABLE), or `slow`: no answer while it lasts."""
        self.turned_away = 0
        self.arrived = threading.Condition()

    def take(self, request: ExportMetricsServiceRequest | ExportTraceServiceRequest) -> bool:
        """Keep the request, or not; whether it was kept."""
        with self.arrived:
            if self.behaviour == "slow":
                self.turned_away += 1
                self.arrived.notify_all()
                self.arrived.wait_for(lambda: self.behaviour != "slow", 60)
                return False
            if self.behaviour == "unavailable":
                self.turned_away += 1
            else:
                (self.traces if isinstance(request, ExportTraceServiceRequest) else self.requests).append(request)
            self.arrived.notify_all()
            return self.behaviour == "ok"

    def behave(self, behaviour: str) -> None:
        """From now on."""
        with self.arrived:
            self.behaviour = behaviour
            self.arrived.notify_all()

    def wait_for(self, number: int, what: str = "requests") -> None:
        """Until so many have arrived (`requests`: of metrics; `traces`), or were turned away."""

        def count() -> int:
            return self.turned_away if what == "turned_away" else len(getattr(self, what))

        with self.arrived:
            assert self.arrived.wait_for(lambda: count() >= number, 60), f"{count()} {what} of {number}"

    @property
    def last(self) -> Series:
        """The last request's metrics of obsloop's."""
        return series_of(self.requests[-1])


def series_of(request: ExportMetricsServiceRequest, scope: str = "obsloop") -> Series:
    """Points by metric name and attributes."""
    return {
        metric.name: {attributes_of(point): point for point in getattr(metric, metric.WhichOneof("data")).data_points}
        for metric in metrics_of(request, scope)
    }


def metrics_of(request: ExportMetricsServiceRequest, scope: str = "obsloop") -> list[Any]:
    """All metrics of a scope."""
    return [
        metric
        for resource in request.resource_metrics
        for one in resource.scope_metrics
        if one.scope.name == scope
        for metric in one.metrics
    ]


def attributes_of(point: Any) -> frozenset[tuple[str, str]]:
    """As a key."""
    return frozenset((pair.key, pair.value.string_value) for pair in point.attributes)


class HttpReceiver(Receiver):
    """OTLP over HTTP, protobuf. `down` closes the port, `up` opens the same one again."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.up()

    @property
    def endpoint(self) -> str:
        """The URL for metrics."""
        return f"http://127.0.0.1:{self.port}/v1/metrics"

    @property
    def base(self) -> str:
        """The URL for all that there is."""
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Serve."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked, answered = PATHS[self.path]
                kept = receiver.take(asked.FromString(body))
                answer = answered().SerializeToString()
                try:
                    self.send_response(200 if kept else 503)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:  # who asked has given up
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Nobody listens."""
        self.server.shutdown()
        self.server.server_close()


class GrpcReceiver(Receiver):
    """OTLP over gRPC."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.up()

    def up(self) -> None:
        """Serve, on the same port as before."""
        import grpc
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces

        receiver = self

        def export(request: Any, context: Any, answered: Any) -> Any:
            if not receiver.take(request):
                context.abort(grpc.StatusCode.UNAVAILABLE, "as it was told to")
            return answered()

        class Metrics(metrics.MetricsServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                return export(request, context, ExportMetricsServiceResponse)

        class Traces(traces.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                return export(request, context, ExportTraceServiceResponse)

        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        metrics.add_MetricsServiceServicer_to_server(Metrics(), self.server)
        traces.add_TraceServiceServicer_to_server(Traces(), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    @property
    def endpoint(self) -> str:
        """What an exporter takes."""
        return f"http://127.0.0.1:{self.port}"

    def down(self) -> None:
        """Nobody listens."""
        self.server.stop(None).wait(30)


@contextmanager
def receiving(kind: type[Receiver]) -> Iterator[Any]:
    """A receiver that is gone afterwards."""
    receiver = kind()
    try:
        yield receiver
    finally:
        receiver.behave("ok")
        receiver.down()
