"""One work on one loop in this fresh process: prints nanoseconds of CPU per operation.

python -m tests.bench.worker "call_soon chain" asyncio:SelectorEventLoop
"""

import gc
import importlib
import sys
import time

from tests.bench.works import WORKS


def main(work_name: str, loop_spec: str) -> None:
    module, _, attribute = loop_spec.partition(":")
    make_loop = getattr(importlib.import_module(module), attribute)
    work, n = WORKS[work_name]
    loop = make_loop()
    work(loop, n // 10)  # warm: caches, specialised bytecode, threads
    gc.collect()
    begin = time.process_time_ns()
    done = work(loop, n)
    spent = time.process_time_ns() - begin
    loop.close()
    print(spent / done)


if __name__ == "__main__":
    main(*sys.argv[1:])
