"""What the tests of watching share: loops that are blocked in known ways, and what was told of it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import obsloop
from obsloop.events import LoopBlocked, LoopUnblocked
from obsloop.testing import Recorder
from obsloop.watch import cause

BLOCK = 0.3
"""Seconds that a loop is blocked in most tests: three times what asyncio calls slow."""


def compute(seconds: float) -> None:
    """Use that much CPU time, however long it takes."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def block(function: Callable[[], object], **settings: Any) -> Recorder:
    """Run a loop that is idle for a while, is blocked by `function`, and goes on; what was told of it."""

    async def main() -> None:
        await asyncio.sleep(0.15)
        function()
        await asyncio.sleep(0.05)

    with Recorder() as events:
        obsloop.run(main(), settings=obsloop.Settings(**settings))
        events.wait_for(LoopUnblocked)
    return events


def pair(events: Recorder) -> tuple[LoopBlocked, LoopUnblocked]:
    """Both events of the block that was put in, the longest: on a busy machine there may be shorter ones beside it."""
    unblocked = max(events.unblocked, key=lambda event: event.duration)
    [blocked] = [event for event in events.blocked if event.started_at == unblocked.started_at]
    return blocked, unblocked


def causes_of(function: Callable[[], object], expected: str, tries: int = 5) -> list[str]:
    """The causes found for a loop that `function` blocks, until it is the one expected.

    On a machine that has no time for us, or stands still, the answer may be that, and is right: then once more.
    """
    found: list[str] = []
    asked: list[tuple[str, cause.Measured]] = []

    def decide(measured: cause.Measured) -> str:
        asked.append((decided(measured), measured))
        return asked[-1][0]

    decided, cause.decide = cause.decide, decide
    try:
        while len(found) < tries and found[-1:] != [expected]:
            unblocked = block(function, name="blocked").unblocked
            own = [event for event in unblocked if event.loop_name == "blocked"]
            found.append(max(own, key=lambda event: event.duration).cause)
            assert found[-1] in {expected, "off_cpu", "unknown"}, asked
    finally:
        cause.decide = decided
    assert found[-1] == expected, asked
    return found
