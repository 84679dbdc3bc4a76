"""A program for a real Prometheus to scrape: its callbacks last a known time, and it counts and times them itself.

It serves /metrics twice: by prometheus_client's own server, from the registry that it has anyway, and by the exporter
that obsloop's service uses. Its ports are its first line of output; it ends when its input does.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prometheus_client
from opentelemetry import trace

import obsloop
import obsloop_exporters.prometheus
from obsloop.asgi import Middleware
from tests.exporters.programs import answer, connections

BLOCKS, BLOCK_SECONDS = 40, 0.03
TRACE_ID, SPAN_ID = 0x5CA1AB1E << 96 | 1, 0xB10C << 48 | 1
"""Of the span that each block is in."""
OTHER_LOOP = 'say "hi" to C:\\new line 🦔'

exporter = obsloop_exporters.prometheus.Exporter()
DURATION = next(metric for metric in obsloop.METRICS if metric.name == "asyncio.eventloop.callback.duration")
own = prometheus_client.Histogram("program_block_seconds", "As the program sees it.", buckets=DURATION.buckets)


class Handler(BaseHTTPRequestHandler):
    """What obsloop's service does, in short."""

    def do_GET(self) -> None:
        content_type, body = exporter.render(self.headers.get("Accept"))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Block the loop `BLOCKS` times, then wait for the end."""
    prometheus_client.REGISTRY.register(obsloop_exporters.prometheus.Collector())
    server, _ = prometheus_client.start_http_server(0, addr="127.0.0.1")
    second = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=second.serve_forever, daemon=True).start()
    print(json.dumps([server.server_port, second.server_port]), flush=True)

    other = threading.Thread(target=lambda: obsloop.run(asyncio.sleep(0.01)), name=OTHER_LOOP)
    other.start()
    other.join()

    loop = obsloop.new_event_loop(obsloop.Settings(name="target", lints=False))
    loop.slow_callback_duration = BLOCK_SECONDS
    loop.set_exception_handler(lambda loop, context: None)
    loop.call_exception_handler({"message": "as an example", "exception": ValueError()})

    loop.run_in_executor(None, time.sleep, 0.001)
    loop.add_signal_handler(signal.SIGUSR1, int)
    os.kill(os.getpid(), signal.SIGUSR1)
    look_up = loop.create_task(loop.getaddrinfo("localhost", 80))
    look_up.add_done_callback(lambda task: task.result())

    asked = loop.create_task(Middleware(answer)({"type": "http", "path_template": "/"}, answer, answer))
    asked.add_done_callback(lambda task: task.result())

    connected = loop.create_task(connections(loop))
    connected.add_done_callback(lambda task: task.result())

    def block(left: int) -> None:
        began = time.monotonic()
        if left > 1:
            loop.call_later(0.01, block, left - 1)
        time.sleep(BLOCK_SECONDS)
        own.observe(time.monotonic() - began)

    loop.add_reader(sys.stdin, loop.stop)
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(TRACE_ID, SPAN_ID, False, sampled))):
        loop.call_later(0, block, BLOCKS)
    loop.run_forever()
    loop.close()


if __name__ == "__main__":
    main()
