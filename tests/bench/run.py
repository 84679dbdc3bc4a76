"""CPU time per operation on the observed loop against the stock loop, as ratios.

    python -m tests.bench.run [--core compiled|pure|both] [--runs 7] [--only SUBSTRING] [--quick] [--limits] [--write]

Each measurement is a fresh process. The sides run in turn (A B A B ...), and what is quoted is the median of the ratios
of neighbouring runs: on a shared machine the pair sees the same weather, an absolute time does not. The sides have
malloc's default settings, which is what users have. One more ratio of the compiled core is with malloc's thresholds
raised on both sides, since asyncio's reads of 256 KiB are otherwise mapped and unmapped each time.

`--quick` measures less, in about three minutes. Either way rows that are worse than in BENCHMARKS.md are reported.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench import handed_away, table
from tests.bench.sides import HAS_UVLOOP, OURS, STOCK, UVLOOP, child, cores, headline, write
from tests.bench.works import WORKS

ALL = [*WORKS, *handed_away.WORKS]
#: The pure core's goals, as ratios to the stock loop. Python has to ask each task after each step whether it is done.
PURE_GOAL, PURE_GOAL_TASKS = 1.25, 1.40
#: The compiled core's goal: at most so much of uvloop's time, and never more than the stock loop's.
OF_UVLOOP = 1.05
QUICK_RUNS, QUICK_SHARE = 3, 0.3

Side = tuple[str, str, bool]
"""A core (for a loop of another project: any), a loop, and whether malloc is tuned."""


def sides(chosen: list[str], loop: str, *, uvloop: bool, tuned: bool) -> dict[str, Side]:
    """Return the sides that take turns, by name."""
    found: dict[str, Side] = {"stock": ("pure", STOCK, False)}
    found |= {core: (core, loop, False) for core in chosen}
    if uvloop:
        found["uvloop"] = ("pure", UVLOOP, False)
    if tuned and "compiled" in chosen:
        found |= {"stock, tuned": ("pure", STOCK, True), "tuned": ("compiled", loop, True)}
    return found


def compare(work: str, taking_turns: dict[str, Side], runs: int, share: float) -> dict[str, Any]:
    """One work: for each side the median in nanoseconds and the ratios to the stock loop, with their extremes."""
    found: dict[str, list[float]] = {side: [] for side in taking_turns}
    for _ in range(runs):
        for side, (core, loop, tuned) in taking_turns.items():
            measured = child(core, "worker", work, loop, "on", str(share), default_malloc=not tuned)
            found[side].append(measured["ns"])
    row: dict[str, Any] = {f"{side}_ns": statistics.median(times) for side, times in found.items()}
    for side in [side for side in taking_turns if not side.startswith("stock")]:
        base = found["stock, tuned" if taking_turns[side][2] else "stock"]
        ratios = [time / stock for time, stock in zip(found[side], base, strict=True)]
        row[side] = {"ratio": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    row["goals"] = goals(work, row)
    return row


def goals(work: str, row: dict[str, Any]) -> dict[str, float]:
    """Return each core's goal: a ratio to the stock loop."""
    found = {"pure": PURE_GOAL_TASKS if work.startswith("tasks") else PURE_GOAL, "compiled": 1.0}
    if "uvloop" in row:
        found["compiled"] = min(1.0, OF_UVLOOP * row["uvloop"]["ratio"])
    return {core: goal for core, goal in found.items() if core in row}


def measure(taking_turns: dict[str, Side], only: str, runs: int, share: float) -> dict[str, Any]:
    """Measure and print the table."""
    headline(f"CPU per operation, ratios to the stock loop, everything switched on, medians of {runs} interleaved runs")
    shown = [side for side in taking_turns if not side.startswith("stock")]
    print(
        f"{'work':34}{'stock us':>9}" + "".join(f"{side:>10}{'goal' if side in cores() else '':>6}" for side in shown)
    )
    rows = {}
    for work in ALL:
        if only not in work:
            continue
        row = rows[work] = compare(work, taking_turns, runs, share)
        print(f"{work:34}{row['stock_ns'] / 1000:9.2f}", end="")
        for side in shown:
            goal = row["goals"].get(side)
            over = "*" if goal is not None and _is_over(row, side) else ""
            print(f"{row[side]['ratio']:>10.2f}{'' if goal is None else f'{goal:.2f}' + over:>6}", end="")
        print(flush=True)
    return rows


def _is_over(row: dict[str, Any], core: str) -> bool:
    return bool(row[core]["ratio"] > row["goals"][core])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, help=f"runs of each side (default 7, with --quick {QUICK_RUNS})")
    parser.add_argument("--only", default="", help="only the works whose name contains this")
    parser.add_argument("--core", choices=["compiled", "pure", "both"], help="default: those that are there")
    parser.add_argument("--loop", default=OURS, help=f"the observed side, MODULE:CALLABLE (default {OURS})")
    parser.add_argument("--quick", action="store_true", help="shorter runs, without uvloop and tuned malloc")
    parser.add_argument("--limits", action="store_true", help="exit 1 when a row is worse than in BENCHMARKS.md")
    parser.add_argument("--write", action="store_true", help="write this interpreter's table into BENCHMARKS.md")
    parser.add_argument("--json", type=Path, help="write the result there, instead of results/table.json")
    args = parser.parse_args(argv)

    chosen = cores() if args.core in (None, "both") else [args.core]
    if args.core in ("both", "compiled") and "compiled" not in cores():
        parser.error("the compiled core is not built here: install the package where there is a C compiler")
    if args.write and (args.quick or args.only or chosen != cores()):
        parser.error("--write needs a whole measurement: no --quick, --only or --core")
    if not HAS_UVLOOP:
        print("uvloop is not installed: without the comparison, and the compiled core's goal is 1.00")
    runs = args.runs or (QUICK_RUNS if args.quick else 7)
    taking_turns = sides(chosen, args.loop, uvloop=HAS_UVLOOP and not args.quick, tuned=not args.quick)
    rows = measure(taking_turns, args.only, runs, QUICK_SHARE if args.quick else 1.0)
    write("table", {"runs": runs, "rows": rows}, args.json)

    over = [f"{work} ({core})" for work, row in rows.items() for core in row["goals"] if _is_over(row, core)]
    print("\n* over their goal:", ", ".join(over) or "none")
    before = table.committed()
    missing = [work for work in rows if not table.ratios_of(work, before)]
    if missing:
        print("not in BENCHMARKS.md yet:", ", ".join(missing))
    tolerance = table.QUICK_TOLERANCE if args.quick else table.TOLERANCE
    worse = table.worse(rows, before, tolerance)
    print(f"worse than in BENCHMARKS.md by more than {tolerance - 1:.0%}:", *(worse or ["none"]), sep="\n  ")
    if args.write:
        table.PAGE.write_text(table.write(rows, table.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"written: {table.PAGE.name}")
    return 1 if worse and args.limits else 0


if __name__ == "__main__":
    sys.exit(main())
