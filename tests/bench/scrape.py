"""The CPU time of one answer at /metrics, with every signal filled, for one loop name and for eight. Goal: 2 ms.

python -m tests.bench.scrape
"""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from typing import Any

from tests.bench.sides import child, cores, headline, which_core, write

GOAL_MS = 2.0
FORMATS = {"text": "text/plain", "openmetrics": "application/openmetrics-text; version=1.0.0"}


async def _everything() -> None:
    """Callbacks of every kind."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, str)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.001)
    loop.remove_signal_handler(signal.SIGUSR1)
    read, written = os.pipe()
    loop.add_writer(written, lambda: (os.write(written, b"x"), loop.remove_writer(written)))
    loop.add_reader(read, lambda: (os.read(read, 1), loop.remove_reader(read)))
    loop.call_soon(str)
    loop.call_soon_threadsafe(str)
    await loop.run_in_executor(None, gc.collect)
    await asyncio.sleep(0.001)
    os.close(read)
    os.close(written)


def measure(names: int) -> dict[str, Any]:
    """In a process of its own: milliseconds of CPU for one answer, and its size, by format."""
    import obsloop
    from obsloop_exporters.prometheus import Exporter

    for i in range(names):
        obsloop.run(_everything(), settings=obsloop.Settings(name=f"loop{i}"))
    exporter = Exporter()
    found: dict[str, Any] = {"core": which_core()}
    for name, accept in FORMATS.items():
        for _ in range(20):
            exporter.render(accept)
        times = []
        for _ in range(200):
            begin = time.thread_time_ns()
            _, body = exporter.render(accept)
            times.append(time.thread_time_ns() - begin)
        times.sort()
        found[name] = {"ms": times[100] / 1e6, "p95_ms": times[190] / 1e6, "bytes": len(body)}
    return found


def main() -> int:
    headline("CPU time of one /metrics answer, every signal filled, median of 200")
    figures = {}
    for core in cores():
        for names in (1, 8):
            found = figures[f"{core}, {names}"] = child(core, "scrape", str(names))
            for name in FORMATS:
                one = found[name]
                verdict = "" if names > 1 else f"  goal {GOAL_MS} ms: {'met' if one['ms'] <= GOAL_MS else 'over'}"
                print(
                    f"{core:10}{names} loop name{'s' if names > 1 else ' '}  {name:12}{one['ms']:7.2f} ms"
                    f" (p95 {one['p95_ms']:.2f}){one['bytes'] / 1024:8.0f} KiB{verdict}",
                    flush=True,
                )
    write("scrape", {"goal_ms": GOAL_MS, "answers": figures})
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        sys.exit(main())
