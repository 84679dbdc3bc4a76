"""An observed program that exports by OTLP five times a second, to whatever is at the URL in its first argument.

It answers each line of its input with what its loop has seen so far, as JSON, and ends when its input does.
"""

import asyncio
import gc
import json
import logging
import sys

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

import obsloop
from obsloop_exporters import otel_metrics

DELAY = "asyncio.eventloop.schedule.delay"
BOUNDS = next(metric.buckets for metric in obsloop.METRICS if metric.name == DELAY)


def report() -> dict[str, object]:
    """Cumulative counts of the delays by bound, failed exports, and how much memory is in use."""
    gc.collect()
    snapshot = obsloop.snapshots()["main"]
    delays = [(*value.cumulative(BOUNDS), value.count) for value in snapshot[DELAY].values()]
    return {
        "delays": [sum(column) for column in zip(*delays, strict=True)],
        "failed": obsloop.process_snapshot().value("obsloop.dropped", "export"),
        "blocks": sys.getallocatedblocks(),
    }


async def main() -> None:
    """Twenty tasks that wake up, do a little, and wait again; and whoever asks."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def asked() -> None:
        if sys.stdin.readline():
            print(json.dumps(report()), flush=True)
        else:
            over.set()

    async def work(n: int) -> None:
        while not over.is_set():
            for _ in range(10):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002 + n / 10_000)

    loop.add_reader(sys.stdin, asked)
    print(json.dumps(report()), flush=True)
    await asyncio.gather(*[work(n) for n in range(20)])
    loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    logging.disable()  # the SDK tells of each failure
    exporter = OTLPMetricExporter(sys.argv[1], timeout=0.3)
    reader = PeriodicExportingMetricReader(exporter, 200)
    provider = MeterProvider(metric_readers=[reader])
    otel_metrics.install(provider)
    obsloop.run(main())
