"""One case in a process of its own: ``python -m tests.detection.child CASE WAY`` prints what was told, as JSON."""

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import obsloop
from obsloop import events
from tests.detection import cases, slow_resolver
from tests.kernel import on_the_run_queue

NAME = "watched"
CULPRIT = ("culprit_function", "culprit_filename", "culprit_lineno", "culprit_seen")


class Recorder(obsloop.Instrument):
    """Keeps every event, when it came and in which thread."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def _keep(self, event: events.Event, **more: object) -> None:
        names = ("loop_name", "kind", "name", "filename", "lineno", "duration", "schedule_delay", "started_at")
        fields = {name: getattr(event, name) for name in (*names, *CULPRIT, "task_name", "detail", "cause")}
        thread = threading.current_thread().name
        self.told.append({"type": type(event).__name__, "at": time.monotonic(), "thread": thread, **fields, **more})

    def on_slow_callback(self, event: events.SlowCallback) -> None:
        self._keep(event)

    def on_slow_iteration(self, event: events.SlowIteration) -> None:
        self._keep(event, top=event.top)

    def on_loop_blocked(self, event: events.LoopBlocked) -> None:
        self._keep(event, samples=_plain(event.samples))

    def on_loop_unblocked(self, event: events.LoopUnblocked) -> None:
        self._keep(event, samples=_plain(event.samples))

    def on_callback_error(self, event: events.CallbackError) -> None:
        self._keep(event)


def _plain(samples: Any) -> list[Any]:
    return [(at, [(f.filename, f.lineno, f.name) for f in frames]) for at, frames in samples]


async def ordinary(seconds: float) -> None:
    """A loop's ordinary life: waits, short steps, callbacks."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asyncio.get_running_loop().call_soon(sum, range(1000))
        await asyncio.sleep(0.005)


async def life(case: cases.Case) -> tuple[float, float]:
    """Ordinary life, the block, and ordinary life. Returns how long it, and the watchdog, waited for a processor.

    That of the time before as well: at first sight the block cannot be told from what was just before it.
    """
    await asyncio.sleep(0.01)  # the watchdog starts
    (watchdog,) = [thread for thread in threading.enumerate() if thread.name == "obsloop-watchdog"]
    ids = threading.get_native_id(), watchdog.native_id
    before = [on_the_run_queue(native_id) for native_id in ids]
    await ordinary(0.15)
    await case.arrange()
    count = cases.SIXTY if case.arrange is cases.sixty_callbacks else 1
    while len(cases.spans) < count:
        await asyncio.sleep(0.005)
    waited = on_the_run_queue(ids[0]) - before[0]
    await ordinary(0.3)  # the kernel counts the watchdog's wait at the block's end when it is over
    return waited, on_the_run_queue(ids[1]) - before[1]


def main() -> None:
    case = cases.ALL[sys.argv[1]]
    cases.choose(sys.argv[2])
    case.prepare()
    recorder = Recorder()
    # No log lines about long blocks, and long steps: on a busy machine each of them is longer.
    loop = obsloop.Loop(
        settings=obsloop.Settings(name=NAME, log_blocked_after=60, unhealthy_after=60, never_yields_after=60)
    )
    loop.add_instrument(recorder)
    epoch = time.time() - time.monotonic()
    waited, watchdog_waited = loop.run_until_complete(life(case))
    loop.run_until_complete(loop.shutdown_default_executor())
    snapshot = loop.snapshot()
    result = {
        "core": obsloop.core,
        "events": recorder.told,
        "began": cases.spans[0][0],
        "ended": cases.spans[-1][1],
        "waited": waited,
        "watchdog_waited": watchdog_waited,
        "epoch": epoch,
        "slow": [[*labels, n] for labels, n in snapshot["asyncio.eventloop.callback.slow"].items()],
        "episodes": {labels[0]: n for labels, n in snapshot["asyncio.eventloop.block.episodes"].items() if n},
    }
    loop.close()
    print(json.dumps(result), flush=True)
    slow_resolver.stop()
    os._exit(0)  # what the cases left open is not to be told of


if __name__ == "__main__":
    main()
