"""The cost per callback beside many that are idle: 10, 1,000 and 100,000 live tasks, timers, and watched descriptors.

python -m tests.bench.flat

Goal: within 5 % of the cost beside 10. It is reported, not asserted: caches and the collector have their say in it.
"""

import asyncio
import gc
import json
import os
import resource
import statistics
import sys
import time
from typing import Any

from tests.bench.sides import OURS, STOCK, child, cores, headline, which_core, write
from tests.bench.works import Loop, call_soon_chain, sleep_zero

NUMBERS = (10, 1_000, 100_000)
THINGS = ("tasks", "timers", "fds")
WORKS = {"sleep(0)": (sleep_zero, 100_000), "chain": (call_soon_chain, 50_000)}


def fill(loop: Loop, thing: str, n: int) -> tuple[int, Any]:
    """Put `n` idle things on the loop: how many it could, and what must be kept."""
    if thing == "tasks":
        never = loop.create_future()

        async def idle() -> None:
            await never

        kept: list[Any] = [loop.create_task(idle()) for _ in range(n)]
        loop.run_until_complete(asyncio.sleep(0))
        return n, kept
    if thing == "timers":
        return n, [loop.call_later(86_400 + i, print) for i in range(n)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + 100 if hard == resource.RLIM_INFINITY else min(n + 100, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    n = min(n, wanted - 100)
    read, write_end = os.pipe()
    fds = [read, *(os.dup(read) for _ in range(n - 1))]  # epoll takes each descriptor of one pipe for itself
    for fd in fds:
        loop.add_reader(fd, print)
    return n, [write_end, *fds]


def measure(spec: str, thing: str, n: int) -> dict[str, Any]:
    """In a process of its own: the works' CPU per operation beside `n` idle things, the best of five rounds each."""
    if spec == OURS:
        import obsloop

        loop: Loop = obsloop.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    made, kept = fill(loop, thing, n)
    gc.collect()
    best = {}
    for name, (work, operations) in WORKS.items():
        times = []
        for _ in range(6):
            begin = time.process_time_ns()
            done = work(loop, operations)
            times.append((time.process_time_ns() - begin) / done)
        best[name] = min(times[1:])
    del kept
    return {"made": made, "ns": best, "core": which_core()}


def main(runs: int = 3) -> int:
    headline(f"Flat: ns per callback beside idle things, ratio to 10 of them, medians of {runs} processes")
    sides = {core: (core, OURS) for core in cores()} | {"stock": ("pure", STOCK)}
    figures: dict[str, Any] = {}
    print(f"{'loop':10}{'beside':8}{'work':10}" + "".join(f"{n:>10,}{'':8}" for n in NUMBERS))
    for side, (core, spec) in sides.items():
        for thing in THINGS:
            found = {n: [child(core, "flat", spec, thing, str(n)) for _ in range(runs)] for n in NUMBERS}
            for name in WORKS:
                row = {}
                for n in NUMBERS:
                    ns = statistics.median(one["ns"][name] for one in found[n])
                    row[n] = {
                        "made": found[n][0]["made"],
                        "ns": ns,
                        "ratio": ns / row[NUMBERS[0]]["ns"] if row else 1.0,
                    }
                figures[f"{side}, {thing}, {name}"] = row
                counters = "".join(f"{r['ns']:10.0f} ({r['ratio']:4.2f}) " for r in row.values())
                made = row[NUMBERS[-1]]["made"]
                note = f"(only {made:,} could be opened)" if made < NUMBERS[-1] else ""
                print(f"{side:10}{thing:8}{name:10}{counters}{note}", flush=True)
    write("flat", {"runs": runs, "rows": figures})
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))), flush=True)
        os._exit(0)  # a hundred thousand pending tasks would each say so
    sys.exit(main())
