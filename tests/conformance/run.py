"""Runs CPython's own asyncio tests on the stock loop and on ours, and fails when a test is worse on ours.

    python tests/conformance/run.py [options] [test_events test_tasks ...]

Runs under the interpreter that starts it, with the tests installed beside it, and needs the standard library only.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from cache import DEFAULT_FOLDER, StockCache
from exceptions import listed_here
from judge import GOOD, judge
from processes import REPOSITORY, ModuleRun, Side, all_modules, kill_children, retry, run_modules
from replace import load_class
from report import print_report

RETRIES = 2
# More failures than this are no flakiness: not each of them is tried again.
MOST_RETRIED = 40
# Nor is a test that hangs likely to be flaky, and each trial of it costs the whole time limit.
MOST_HANGS_RETRIED = 2


def main() -> int:
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    options = parse_arguments()
    sys.path.insert(1, str(REPOSITORY))
    loop_class = load_class(options.loop)
    known = all_modules()
    modules = [name for name in known if not options.modules or name in options.modules]
    if unknown := set(options.modules) - set(known):
        raise SystemExit(f"no such modules in test.test_asyncio: {', '.join(sorted(unknown))}")

    started = time.monotonic()
    stock = stock_results(options, modules)
    stock_seconds = time.monotonic() - started
    side = Side("ours", options.loop)
    ours = run_modules(side, modules, options.jobs, options.k, say)
    retry_failures(side, ours, stock)
    print(f"\nPython {sys.version.split()[0]}, {len(modules)} modules, {options.jobs} jobs.", end=" ")
    print(f"The class's _run_once is that of {loop_class._run_once.__module__}.", end=" ")
    print(f"Stock side {stock_seconds:.0f} s, our side {time.monotonic() - started - stock_seconds:.0f} s.")

    verdict = judge(stock, ours, listed_here(), all_tests=not options.k, all_modules=modules == known and not options.k)
    print_report(stock, ours, verdict, options.loop)
    if options.json:
        sides = {"stock": stock, "ours": ours}
        document = {
            "python": sys.version,
            "loop": options.loop,
            "verdict": verdict.to_json(),
            **{name: {module: run.to_json() for module, run in runs.items()} for name, runs in sides.items()},
        }
        options.json.write_text(json.dumps(document, indent=1))
    return 0 if verdict.ok else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="test modules, such as test_events (default: all)")
    parser.add_argument("--loop", default="obsloop:Loop", help="the class under test, MODULE:CLASS")
    parser.add_argument("-k", action="append", default=[], metavar="PATTERN", help="only matching tests")
    parser.add_argument("--jobs", type=int, default=2, help="modules at a time (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result there")
    parser.add_argument("--stock-cache", type=Path, default=DEFAULT_FOLDER, metavar="DIR")
    parser.add_argument("--no-cache", action="store_true", help="run the stock side again and keep that")
    return parser.parse_args()


def stock_results(options: argparse.Namespace, modules: list[str]) -> dict[str, ModuleRun]:
    """The stock side's results, from the cache where it has them."""
    cache = StockCache(options.stock_cache)
    cached = {} if options.no_cache or options.k else cache.load()
    side = Side("stock", None)
    missing = [module for module in modules if module not in cached]
    fresh = run_modules(side, missing, options.jobs, options.k, say)
    # A test that flakes on stock must not excuse ours: it is tried again as well.
    retry_failures(side, fresh, {})
    if fresh and not options.k:
        cache.save(fresh)
    return {module: (cached | fresh)[module] for module in modules}


def retry_failures(side: Side, runs: dict[str, ModuleRun], stock: dict[str, ModuleRun]) -> None:
    """Run what failed by itself again, unless it fails on stock too; what passes then counts, with its retries."""
    failures = []
    for module, run in runs.items():
        on_stock = stock[module].tests if stock else {}
        expected = {name for name, outcome in on_stock.items() if outcome.outcome not in GOOD}
        for name, outcome in run.tests.items():
            # Only tests: the error of a class, a module or a process has a name with a space, and cannot be run.
            if outcome.outcome not in GOOD | {"skipped"} and name not in expected and " " not in name:
                failures.append((module, name))
    hangs = 0
    for module, name in failures[:MOST_RETRIED]:
        times = RETRIES
        if runs[module].tests[name].ended_process:
            hangs += 1
            times = 1 if hangs <= MOST_HANGS_RETRIED else 0
        again = retry(side, module, name, times)
        say(f"{side.name}: {name}: {'passed on retry' if again else 'fails every time'}")
        if again is not None:
            again.altered = again.altered or runs[module].tests[name].altered
            runs[module].tests[name] = again


def stop(number: int, frame: object) -> None:
    """End the children, which are in sessions of their own and would run on, and then this process."""
    kill_children()
    os._exit(128 + number)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
