"""What the recording alone costs: the compiled core with it on against the same core with it off, per callback.

python -m tests.bench.recording

Works in which one operation is one callback. Off means: no stamp, no clock read after a callback, no histograms of it.
"""

import statistics
import sys

from tests.bench.sides import OURS, child, cores, headline, write

WORKS = ("sleep(0), 10 tasks", "call_soon, batches of 1,000", "call_soon chain")


def main(runs: int = 7) -> int:
    if "compiled" not in cores():
        print("\nThe cost of recording: the compiled core is not built here, and the pure one always records.")
        return 0
    headline(f"The cost of recording, compiled core, medians of {runs} interleaved pairs")
    print(f"{'work':32}{'off ns':>9}{'on ns':>9}{'recording, ns per callback':>28}")
    figures = {}
    for work in WORKS:
        pairs = [[child("compiled", "worker", work, OURS, how)["ns"] for how in ("off", "on")] for _ in range(runs)]
        off, on = (statistics.median(side) for side in zip(*pairs, strict=True))
        cost = statistics.median(on - off for off, on in pairs)
        figures[work] = {"off_ns": off, "on_ns": on, "recording_ns": cost}
        print(f"{work:32}{off:9.0f}{on:9.0f}{cost:28.0f}", flush=True)
    write("recording", {"runs": runs, "works": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
