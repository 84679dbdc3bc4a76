"""Each test of lints begins with nothing found, nothing told and nothing logged."""

import asyncio
import contextlib
import gc

import pytest

import obsloop
from obsloop.base import log
from obsloop.hotpath import creation_samples
from obsloop.metrics import self_metrics
from obsloop.tasks.lints import findings, runner
from obsloop.testing import Recorder


@pytest.fixture(autouse=True)
def from_nothing(clean_metrics, nothing_to_tell, cheap_collections):
    """As in a process where no loop has run before; what the test leaves behind is collected within it."""
    start_anew()
    log.forked()
    creation_samples._sampled.clear()
    yield
    gc.collect()
    start_anew()


def start_anew() -> None:
    """Forget what has been found so far."""
    for part in (runner, findings, self_metrics):
        part.forked()


@pytest.fixture
def quick(monkeypatch) -> None:
    """The watchdog looks every 20 ms, whatever it costs: what takes seconds in life takes less here."""
    monkeypatch.setattr(runner, "LOOK_NS", 20_000_000)
    monkeypatch.setattr(runner, "SHARE", 1)


@pytest.fixture
def told():
    """What is told while the test lasts."""
    with Recorder() as events:
        yield events


class Looking:
    """A loop that is looked at when the test says so, at the time that it says."""

    def __init__(self, loop) -> None:
        self.loop = loop
        self.seconds = 1000.0
        self.all = runner._Lints()

    async def look(self, after: float = 1.0) -> int:
        """One look, ``after`` seconds later by its clock, from another thread; how many slices it took."""
        self.seconds += after
        return await asyncio.to_thread(self._look)

    def _look(self) -> int:
        return sum(1 for _ in self.all._all(runner.TaskScan(round(self.seconds * 1e9), runner._runs())))


@pytest.fixture
def looked_at(monkeypatch):
    """Run a coroutine function that is given a ``Looking``; the watchdog itself does not look meanwhile."""
    later = runner.LOOK_NS

    def go_on() -> int:
        return runner.time.monotonic_ns() + later

    monkeypatch.setattr(runner, "go_on", go_on)

    def run(main, **settings):
        async def start():
            looking = Looking(asyncio.get_running_loop())
            monkeypatch.setattr(runner, "_lints", looking.all)
            return await main(looking)

        return obsloop.run(start(), settings=obsloop.Settings(name="looked at", **settings))

    return run


@pytest.fixture
def stopping():
    """Tasks that are cancelled, and waited for, when the block is left."""

    @contextlib.asynccontextmanager
    async def stop(*tasks):
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return stop
