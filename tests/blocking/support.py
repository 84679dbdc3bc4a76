"""What the tests of watching share: loops that are blocked in known ways, and what was told of it."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import obsloop
from obsloop.blocking import cause
from obsloop.events import LoopBlocked, LoopUnblocked
from obsloop.testing import Recorder
from tests.kernel import on_the_run_queue

CONTENDED = 0.002
"""Seconds on the run queue: without them neither the loop nor the watchdog was kept from a CPU."""

BLOCK = 0.3
"""Seconds that a loop is blocked in most tests: three times what asyncio calls slow."""


def until(condition, seconds: float = 20.0) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


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


class Kernel(NamedTuple):
    """What the kernel counted while a loop was blocked, in seconds."""

    lasted: float
    cpu: float
    waited: float
    """Run-queue time of the blocked thread."""
    watchdog_waited: float
    """Run-queue time of the watchdog, from before the block until shortly after it."""

    def allowed(self, expected: str) -> set[str]:
        """The right answers: on a free machine the expected one alone."""
        found = {expected}
        if max(self.waited, self.watchdog_waited) > CONTENDED:
            found.add("unknown")
        if self.waited >= self.lasted / 10:
            found.add("off_cpu")
        return found


def _measured(function: Callable[[], object]) -> tuple[Kernel, Recorder]:
    """Block a loop, and read the kernel's figures of both threads, before and after."""
    read: list[Kernel] = []

    async def main() -> None:
        await asyncio.sleep(0.15)
        ids = [thread.native_id for thread in threading.enumerate() if thread.name == "obsloop-watchdog"]
        watchdog = sum(map(on_the_run_queue, ids))
        began, cpu, waited = time.monotonic(), time.thread_time(), on_the_run_queue()
        function()
        lasted, cpu, waited = time.monotonic() - began, time.thread_time() - cpu, on_the_run_queue() - waited
        await asyncio.sleep(0.05)  # the kernel counts the watchdog's wait at the block's end when it is over
        read.append(Kernel(lasted, cpu, waited, sum(map(on_the_run_queue, ids)) - watchdog))

    with Recorder() as events:
        # The block may last longer than these on a busy machine, and nothing is to be logged of that.
        settings = obsloop.Settings(name="blocked", log_blocked_after=600, unhealthy_after=600, never_yields_after=600)
        obsloop.run(main(), settings=settings)
        events.wait_for(LoopUnblocked)
    return read[0], events


def assert_caused(function: Callable[[], object], expected: str, tries: int = 5) -> None:
    """The cause found for a loop that `function` blocks is the expected one.

    On a busy machine `off_cpu` and `unknown` may be right: then once more, and if the kernel's figures of the threads
    say so at the last try too, that answer passes. Where the kernel says that the machine was free, it does not.
    """
    asked: list[tuple[str, cause.Measured]] = []

    def decide(measured: cause.Measured) -> str:
        asked.append((decided(measured), measured))
        return asked[-1][0]

    decided, cause.decide = cause.decide, decide
    try:
        for _ in range(tries):
            kernel, events = _measured(function)
            own = [event for event in events.unblocked if event.loop_name == "blocked"]
            found = max(own, key=lambda event: event.duration).cause
            assert found in {expected, "off_cpu", "unknown"}, (kernel, asked)
            if found == expected:
                return
    finally:
        cause.decide = decided
    assert found in kernel.allowed(expected), (kernel, asked)
