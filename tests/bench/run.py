"""CPU time per operation on the observed loop against the stock loop, as ratios.

    python -m tests.bench.run [--runs 7] [--only SUBSTRING] [--limits] [--json FILE] [--loop MODULE:CALLABLE]

Each measurement is a fresh process. The two sides run in turn (A B A B ...), and what is quoted is the median of the
ratios of neighbouring runs: on a shared machine the pair sees the same weather, an absolute time does not. Both sides
get the same malloc thresholds, since asyncio's 256 KiB reads otherwise swing fourfold with malloc's trimming.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.works import WORKS

ROOT = Path(__file__).resolve().parents[2]
STOCK = "asyncio:SelectorEventLoop"
OURS = "obsloop:new_event_loop"

#: What the pure core promises, and what `--limits` holds it to: at most this ratio to the stock loop.
PURE_LIMITS = dict.fromkeys(WORKS, 1.2) | {"call_soon, batches of 1,000": 1.30}


def measure(work: str, loop: str) -> float:
    """Nanoseconds of CPU per operation, from one fresh process."""
    env = os.environ | {
        "MALLOC_TRIM_THRESHOLD_": "100000000",
        "MALLOC_MMAP_THRESHOLD_": "100000000",
        "PYTHONHASHSEED": "0",
    }
    out = subprocess.run(
        [sys.executable, "-m", "tests.bench.worker", work, loop],
        cwd=ROOT, env=env, check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return float(out.stdout)


def compare(work: str, loop: str, runs: int) -> dict[str, float]:
    """Medians for one work: stock and ours in nanoseconds, the ratio, and the ratios' extremes."""
    pairs = [(measure(work, STOCK), measure(work, loop)) for _ in range(runs)]
    ratios = [ours / stock for stock, ours in pairs]
    return {
        "stock_ns": statistics.median(stock for stock, _ in pairs),
        "ours_ns": statistics.median(ours for _, ours in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="pairs of runs for each work (default 7)")
    parser.add_argument("--only", default="", help="only the works whose name contains this")
    parser.add_argument("--loop", default=OURS, help=f"the observed side, MODULE:CALLABLE (default {OURS})")
    parser.add_argument("--limits", action="store_true", help="exit 1 when a ratio is above its limit")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()

    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {args.runs} pairs")
    print(f"{'work':34}{'stock us':>10}{'ours us':>10}{'ratio':>8}{'min':>7}{'max':>7}{'limit':>8}")
    results: dict[str, dict[str, float]] = {}
    over = []
    for work in WORKS:
        if args.only not in work:
            continue
        r = results[work] = compare(work, args.loop, args.runs)
        limit = PURE_LIMITS[work]
        mark = " over" if r["ratio"] > limit else ""
        print(
            f"{work:34}{r['stock_ns'] / 1000:10.2f}{r['ours_ns'] / 1000:10.2f}{r['ratio']:8.2f}"
            f"{r['ratio_min']:7.2f}{r['ratio_max']:7.2f}{limit:8.2f}{mark}",
            flush=True,
        )
        if mark:
            over.append(work)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"python": sys.version, "runs": args.runs, "works": results}, indent=2) + "\n")
    if over:
        print("over the limit:", ", ".join(over))
    return 1 if over and args.limits else 0


if __name__ == "__main__":
    sys.exit(main())
