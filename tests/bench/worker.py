"""One work on one loop in this fresh process: prints nanoseconds of CPU per operation, and the core that ran, as JSON.

python -m tests.bench.worker "call_soon chain" asyncio:SelectorEventLoop [on | unwatched] [SHARE]

With `unwatched` there is no watchdog but a thread that does nothing. SHARE is of the usual number of operations.
"""

import gc
import importlib
import json
import os
import sys
import threading
import time

from tests.bench import handed_away, works
from tests.bench.sides import which_core


def main(work_name: str, loop_spec: str, watchdog: str = "on", share: str = "1") -> None:
    # One core for all its threads: else a figure depends on which cores they got, and on who else has those.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    module, _, attribute = loop_spec.partition(":")
    make_loop = getattr(importlib.import_module(module), attribute)
    if watchdog == "unwatched":
        os.environ["OBSLOOP_WATCHDOG"] = "0"
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    work, n = (works.WORKS | handed_away.WORKS)[work_name]
    n = max(1000, int(n * float(share))) if n > 1000 else n
    loop = make_loop()
    work(loop, n // 10)  # warm: caches, specialised bytecode, threads
    gc.collect()
    begin = time.process_time_ns()
    done = work(loop, n)
    spent = time.process_time_ns() - begin
    loop.close()
    print(
        json.dumps({"ns": spent / done, "core": which_core(), "loop": f"{type(loop).__module__}.{type(loop).__name__}"})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
