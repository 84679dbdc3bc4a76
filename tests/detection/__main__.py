"""The table: every case, in every way, on every core, and what was told of it.

python -m tests.detection [CASE ...]
"""

import sys

from tests.detection import cases
from tests.detection.seen import CORES, Seen, run

HEAD = (
    "case", "blocks by", "core", "kind", "name", "seen live after", "put in", "slow callback", "unblocked", "cause",
    "at first sight", "samples",
)  # fmt: skip


def row(seen: Seen) -> tuple[str, ...]:
    """One case's line; what nobody told of is a dash."""
    callback, blocked, unblocked = (
        next(iter(seen.told(kind)), None) for kind in ("SlowCallback", "LoopBlocked", "LoopUnblocked")
    )
    event = blocked or callback or {}
    live = "-"
    if blocked is not None:
        live = f"{blocked['at'] - seen.began:.3f} s" + (", at its end" if blocked["at"] > seen.ended else "")
    return (
        seen.case.title,
        seen.way or "-",
        seen.core,
        event.get("kind", "-"),
        "`" + event.get("name", "-").removeprefix(f"{cases.__name__}.") + "`",
        live,
        f"{seen.duration:.3f} s",
        f"{callback['duration']:.3f} s" if callback is not None else "-",
        f"{unblocked['duration']:.3f} s" if unblocked is not None else "-",
        unblocked["cause"] if unblocked is not None else "-",
        blocked["cause"] if blocked is not None else "-",
        str(len(unblocked["samples"])) if unblocked is not None else "-",
    )


def line(counters: tuple[str, ...]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(counters)} |"


def main() -> None:
    print(line(HEAD))
    print(line(("---",) * len(HEAD)))
    for name in sys.argv[1:] or cases.POSSIBLE:
        for way in cases.ALL[name].ways:
            for core in CORES:
                print(line(row(run(name, way, core))), flush=True)


if __name__ == "__main__":
    main()
