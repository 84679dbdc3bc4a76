"""A healthy loop on a machine that others load: ``python -m tests.detection.healthy SECONDS`` prints what it was told.

The loop's work is that of a small service: steps of 1 to 5 ms, waits, timers, callbacks, a client and a server.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import obsloop
from tests.detection.child import Recorder

# Ends with whoever started it, however that went.
_BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(10000))"


@contextmanager
def loaded(per_processor: int = 2) -> Iterator[int]:
    """Load this machine with so many busy processes for each processor; how many these are."""
    count = per_processor * (os.cpu_count() or 1)
    busy = [subprocess.Popen([sys.executable, "-I", "-c", _BUSY, str(os.getpid())]) for _ in range(count)]
    try:
        yield count
    finally:
        for process in busy:
            process.kill()
            process.wait()


def compute(seconds: float) -> None:
    """Take so much CPU time."""
    enough = time.thread_time() + seconds
    while time.thread_time() < enough:
        pass


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo lines, each after some work."""
    while line := await reader.readline():
        compute(0.001)
        writer.write(line)
        await writer.drain()
    writer.close()


async def work(seconds: float) -> None:
    """A service's ordinary life: below half of a processor."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    end, turn = loop.time() + seconds, 0
    while loop.time() < end:
        turn += 1
        writer.write(b"%d\n" % turn)
        loop.call_soon(compute, 0.001)
        loop.call_later(0.003, compute, 0.001)
        await reader.readline()
        compute(0.001 * (turn % 5 + 1))
        await asyncio.sleep(0.01)
    writer.close()
    server.close()


def main() -> None:
    recorder = Recorder()
    loop = obsloop.Loop()
    loop.add_instrument(recorder)
    loop.run_until_complete(work(float(sys.argv[1])))
    loop.run_until_complete(asyncio.sleep(0.2))
    histogram = loop.snapshot().histogram("asyncio.eventloop.iteration.duration")
    loop.close()
    print(json.dumps({"core": obsloop.core, "iterations": histogram.count, "events": recorder.told}), flush=True)


if __name__ == "__main__":
    main()
