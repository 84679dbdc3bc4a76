"""The watchdog's thread begins and ends, whatever interrupts that: afterwards there is one, and not two."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import obsloop
from obsloop.blocking import endings, watchdog
from obsloop.events import LoopUnblocked
from obsloop.hotpath import held
from obsloop.metrics import runs
from obsloop.testing import Recorder
from tests.support import LIMIT, state_of_watchdog

from .support import BLOCK, block


class Interrupt(KeyboardInterrupt):
    """What the signal's handler raises."""


@pytest.fixture
def no_thread() -> None:
    """As after a fork: the watchdog's thread has ended."""
    watchdog._end(LIMIT)
    assert watchdog._life is None
    assert count() == 0


@pytest.fixture
def handler() -> Iterator[None]:
    """A signal's handler that raises."""

    def raises(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, raises)
    yield
    signal.signal(signal.SIGUSR1, before)


def count() -> int:
    """How many threads of this kind there are."""
    return sum(thread.name == "obsloop-watchdog" for thread in threading.enumerate())


def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, state_of_watchdog()
        time.sleep(0.005)


def assert_watches() -> None:
    """A block is seen while it lasts, by the one thread there is."""
    events = block(lambda: until(lambda: asyncio.get_running_loop()._obsloop.episode is not None))
    assert any(event.samples for event in events.unblocked)
    assert count() == 1


@pytest.mark.parametrize("where", ["in_subinterpreter", "start_without_signals", "after the start"])
@pytest.mark.usefixtures("no_thread", "handler")
def test_an_interrupt_while_it_starts(monkeypatch, where):
    """Before the thread is there, and when it is there already: the next run starts one, and the other ends."""
    name = where if where != "after the start" else "start_without_signals"
    original: Any = getattr(watchdog, name)

    def interrupted(*args: Any) -> Any:
        if where == "after the start":
            original(*args)
        signal.raise_signal(signal.SIGUSR1)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(watchdog, name, interrupted)
        with pytest.raises(Interrupt):
            watchdog._start()
    assert watchdog._life is None
    until(lambda: count() == 0)
    assert_watches()


@pytest.mark.usefixtures("no_thread")
def test_a_start_that_hangs_does_not_keep_others_from_it(monkeypatch):
    """Another thread tries again after a while; what hung ends when it goes on."""
    begun, goes_on, starts = threading.Event(), threading.Event(), []
    original = watchdog.start_without_signals

    def hangs(thread: threading.Thread) -> None:
        starts.append(thread)
        if len(starts) == 1:
            begun.set()
            goes_on.wait(LIMIT)
        original(thread)

    monkeypatch.setattr(watchdog, "start_without_signals", hangs)
    monkeypatch.setattr(watchdog, "_STALE_NS", 1 << 60)
    first = threading.Thread(target=lambda: obsloop.run(asyncio.sleep(0)))
    first.start()
    begun.wait(LIMIT)
    obsloop.run(asyncio.sleep(0))
    assert len(starts) == 1
    monkeypatch.setattr(watchdog, "_STALE_NS", 0)
    obsloop.run(asyncio.sleep(0))
    assert len(starts) == 2
    goes_on.set()
    first.join()
    until(lambda: not starts[0].is_alive())
    assert_watches()


@pytest.mark.usefixtures("handler")
def test_an_interrupt_while_it_is_waited_for():
    """The thread that forks waits for the watchdog's end, and a signal comes: the watchdog ends, and begins again."""
    assert_watches()
    life = watchdog._life
    assert life is not None
    in_hook, waits = threading.Event(), threading.Event()

    class Instrument(obsloop.Instrument):
        def on_loop_unblocked(self, event: LoopUnblocked) -> None:
            in_hook.set()
            waits.wait(LIMIT)

    instrument = Instrument()
    obsloop.add_instrument(instrument)
    try:
        loop = obsloop.Loop()
        loop.call_soon(time.sleep, BLOCK)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        until(in_hook.is_set)
        main = threading.get_ident()

        def interrupt() -> None:
            until(lambda: life.stop)
            signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(Interrupt):
            watchdog._end(LIMIT)
        thread.join()
    finally:
        obsloop.remove_instrument(instrument)
        waits.set()
    until(lambda: watchdog._life is not life)
    until(lambda: count() <= 1)
    assert_watches()


def test_two_threads_that_end_it_at_once():
    """The one that comes later has nothing to do with the life that has begun meanwhile."""
    assert_watches()
    ended = watchdog._life
    assert ended is not None
    watchdog._end(LIMIT)
    assert_watches()
    life = watchdog._life
    spent_ns = watchdog._spent_before_ns
    watchdog._end_life(ended)
    assert watchdog._life is life is not None
    assert watchdog._spent_before_ns == spent_ns


def test_an_end_that_never_comes_is_given_up(monkeypatch):
    """The loop's thread took the episode to report its end, and was interrupted: the watchdog parks nevertheless."""

    def interrupted(*_: object) -> None:
        raise Interrupt

    loop = obsloop.Loop()
    loop.call_soon(until, lambda: loop._obsloop.episode is not None)
    with monkeypatch.context() as patch:
        patch.setattr(endings, "_close", interrupted)
        loop.call_soon(loop.stop)
        with pytest.raises(Interrupt):
            loop.run_forever()
    assert loop._obsloop.episode is None
    assert endings.open_episodes
    until(lambda: not endings.open_episodes)
    loop.close()
    until(lambda: watchdog._asleep)
    assert_watches()


def test_an_episode_whose_loop_was_closed_is_over(monkeypatch):
    """An interrupt may leave a run in the list of those that go on; its loop is closed."""
    with Recorder() as events:
        loop = obsloop.Loop()
        loop.call_soon(until, lambda: loop._obsloop.episode is not None)
        loop.call_soon(loop.stop)
        with monkeypatch.context() as patch:
            patch.setattr(watchdog, "iteration_ended", lambda *_: None)
            patch.setattr("obsloop.metrics.runs.ended", lambda counters: None)
            loop.run_forever()
        assert threading.get_ident() in runs.runs
        loop.close()
        try:
            event = events.wait_for(LoopUnblocked, LIMIT)
        finally:
            del runs.runs[threading.get_ident()]
    assert event.samples


def test_a_full_list_of_what_was_held_is_emptied():
    """So many looks were taken in one iteration that there are no further ones: its end is reported, and all go."""
    loop = obsloop.Loop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    obs = loop._obsloop
    obs.held.extend(held.Held(0, [object()]) for _ in range(held.MOST))
    obs.set_thresholds()
    assert held.full(obs)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not obs.held
    loop.close()
