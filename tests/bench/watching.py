"""What the watchdog costs when all is well: with it against without it, CPU time of the whole process.

python -m tests.bench.watching

The works keep the loop busy all the time without ever blocking it: the watchdog looks as often as it ever does. The
side without it has an idle thread in its place: that a process has two threads costs any loop, the stock one as well,
60 to 80 ns a poll (glibc's and the interpreter's locks become real ones), and nearly every program has two.
"""

import statistics
import sys

from tests.bench.sides import OURS, child, cores, headline, write

WORKS = ("sleep(0), 10 tasks", "call_soon chain", "timers (sleep 1 us, 100 tasks)", "streams echo")
GOAL = 1.01


def main(runs: int = 9) -> int:
    figures: dict[str, dict[str, float]] = {}
    for core in cores():
        headline(f"The cost of the watchdog, {core} core, medians of {runs} interleaved pairs; goal {GOAL}")
        print(f"{'work':32}{'off ns':>9}{'on ns':>9}{'ratio':>8}{'min':>8}{'max':>8}")
        for work in WORKS:
            pairs = [[child(core, "worker", work, OURS, how)["ns"] for how in ("unwatched", "on")] for _ in range(runs)]
            off, on = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratios = sorted(on / off for off, on in pairs)
            ratio = statistics.median(ratios)
            figures[f"{core}: {work}"] = {"off_ns": off, "on_ns": on, "ratio": ratio}
            print(f"{work:32}{off:9.0f}{on:9.0f}{ratio:8.3f}{ratios[0]:8.3f}{ratios[-1]:8.3f}", flush=True)
    write("watching", {"runs": runs, "works": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
