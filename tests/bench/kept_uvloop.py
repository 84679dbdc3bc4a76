"""CPU time per operation on an observed uvloop loop against a plain one, as ratios of neighbouring runs.

python -m tests.bench.kept_uvloop [--runs 7] [--only SUBSTRING]
"""

import argparse
import statistics
import sys

from tests.bench import handed_away
from tests.bench.sides import UVLOOP, child, cores, headline
from tests.bench.works import WORKS

KEPT = "obsloop.loop.kept_uvloop:Loop"
GOAL = 1.10


def main() -> int:
    """Measure and print the table; return 1 if a work is over the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="pairs of runs for each work (default 7)")
    parser.add_argument("--only", default="", help="only the works whose name contains this")
    options = parser.parse_args()
    core = cores()[0]
    headline(f"CPU per operation, uvloop observed ({core} core) against plain uvloop, medians of {options.runs} pairs")
    over = False
    for work in [work for work in (*WORKS, *handed_away.WORKS) if options.only in work]:
        plain: list[float] = []
        ratios: list[float] = []
        for _ in range(options.runs):
            malloc = work in handed_away.WORKS
            one, other = (child(core, "worker", work, loop, default_malloc=malloc)["ns"] for loop in (UVLOOP, KEPT))
            plain.append(one)
            ratios.append(other / one)
        ratio = statistics.median(ratios)
        over |= ratio > GOAL
        print(
            f"{work:32}{statistics.median(plain) / 1000:9.2f}{ratio:8.2f}{min(ratios):7.2f}{max(ratios):7.2f}",
            flush=True,
        )
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
