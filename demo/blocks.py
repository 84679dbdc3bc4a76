"""Name what blocked the loop, from the JSON of /slow: each block in a line as it ends, and an answer at the end."""

import linecache
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple


class Block(NamedTuple):
    """One block that is over."""

    path: str
    line: int
    function: str
    cause: str
    seconds: float

    @property
    def where(self) -> str:
        """The place, with the end of the path only."""
        return f"{'/'.join(Path(self.path).parts[-2:])}:{self.line} in {self.function}"


class Blocks:
    """The blocks that /slow has shown."""

    def __init__(self, slow: dict[str, Any]) -> None:
        """Take note of what blocked the loop while the application started: that is not reported."""
        self.found: list[Block] = []
        self._seen: set[str] = set()
        self.update(slow)
        self.found.clear()

    def update(self, slow: dict[str, Any]) -> list[Block]:
        """Return the blocks that have ended since the last call, oldest first."""
        new: list[Block] = []
        for event in reversed(slow["events"]):
            if event["event"] == "loop_blocked" and not event["lasting"] and event["started_at"] not in self._seen:
                self._seen.add(event["started_at"])
                new.append(_block(event))
        self.found += new
        return new

    def answer(self) -> str:
        """Return three lines: who blocked the loop, how long and how often, and where to look."""
        if not self.found:
            return "Nothing blocked the loop."
        # A busy machine stops whatever runs at that moment: that is named only if nothing else blocked.
        counted = [block for block in self.found if block.cause != "off_cpu"] or self.found
        sums: dict[str, float] = defaultdict(float)
        for block in counted:
            sums[block.where] += block.seconds
        worst = max(sums, key=lambda where: sums[where])
        blocks = [block for block in counted if block.where == worst]
        text = linecache.getline(blocks[0].path, blocks[0].line).partition("#")[0].strip()
        others = len(self.found) - len(blocks)
        return (
            f"Who blocked the loop:  {worst}, cause {blocks[-1].cause}\n"
            f"How long, how often:   {sums[worst]:.2f} s in {len(blocks)} blocks, the longest"
            f" {max(block.seconds for block in blocks):.2f} s{f' ({others} other blocks)' if others else ''}\n"
            f"Where to look:         `{text}`; for your own program, its log and /slow"
        )


def _block(event: dict[str, Any]) -> Block:
    """Return an event of /slow as a block: its culprit, and the line of it."""
    path, _, line = (event["culprit_file"] or "?:0").rpartition(":")
    function = event["culprit"].rpartition(".")[2]
    return Block(path, int(line), function, event["cause"], event["duration_seconds"])
