"""The lag against what clients measure, who arrive at random moments and do not wait for each other.

A server echoes each message at once, and blocks its loop now and then for a known time. The clients write at moments
drawn beforehand (a Poisson process), whatever the server does: an open loop. Both sides see the same busy machine, so
the two are compared, and neither with a number.
"""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from itertools import accumulate

import pytest

import obsloop

pytestmark = pytest.mark.both_cores

SERVER = """
import asyncio, json, random, sys, time
import obsloop

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)

async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    over = loop.run_in_executor(None, sys.stdin.readline)
    dice = random.Random(7)
    while not over.done():
        for length in (0.4, 0.4, 0.7):      # blocked for five eighths of the time
            time.sleep(length)
            await asyncio.sleep(dice.uniform(0.2, 0.4))
    lag = loop.snapshot().histogram("asyncio.eventloop.lag")
    print(json.dumps([obsloop.core, lag.bucket_counts]), flush=True)
    server.close()

obsloop.run(main())
"""

SECONDS, PER_SECOND = 30, 150
BOUNDS = next(m for m in obsloop.METRICS if m.name == "asyncio.eventloop.lag").buckets


def measure(port: int) -> list[float]:
    """Write at random moments and return how long each answer took, since the moment that was drawn."""
    dice, drawn, found = random.Random(1), [0.0], []
    while drawn[-1] < SECONDS:
        drawn.append(drawn[-1] + dice.expovariate(PER_SECOND))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.monotonic()

        def answers() -> None:
            with sock.makefile("rb") as file:
                for _ in drawn:
                    (sent,) = struct.unpack("d", file.read(8))
                    found.append(time.monotonic() - sent)

        reader = threading.Thread(target=answers)
        reader.start()
        for at in drawn:
            time.sleep(max(0.0, began + at - time.monotonic()))
            sock.sendall(struct.pack("d", began + at))
        reader.join(60)
    assert len(found) == len(drawn)
    return sorted(found)


def quantile_bucket(counts: list[int], q: float) -> int:
    """The bucket of the catalogue in which the quantile of the fine buckets lies."""
    fine = bisect_left(list(accumulate(counts)), q * sum(counts))
    fine_bounds = obsloop.metrics.buckets.SECONDS.bounds
    return bisect_left(BOUNDS, fine_bounds[fine] / 1e9 if fine < len(fine_bounds) else float("inf"))


@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_open_loop_clients_measure_the_same(core):
    """p50, p95 and p99 of both lie in the same bucket or in neighbours."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OBSLOOP_")}
    env |= {"OBSLOOP_PURE": "1"} if core == "pure" else {}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            waits = measure(int(server.stdout.readline()))
            server.stdin.write("\n")
            server.stdin.close()
            used, counts = json.loads(server.stdout.readline())
        finally:
            server.kill()
    assert used in (core, "pure")  # the compiled core may not have been built
    for q in (0.5, 0.95, 0.99):
        theirs, ours = waits[int(q * len(waits))], quantile_bucket(counts, q)
        assert abs(ours - bisect_left(BOUNDS, theirs)) <= 1, (q, theirs, ours)
