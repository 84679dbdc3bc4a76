"""Slow callbacks and slow iterations: put in with a step clock, to the nanosecond, and found again."""

import asyncio
import logging

import pytest

import obsloop
from obsloop import events
from obsloop.base import log
from tests.support import run_briefly, stepped as step_clock


class Listener:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.callbacks: list[events.SlowCallback] = []
        self.iterations: list[events.SlowIteration] = []

    def on_slow_callback(self, event):
        self.callbacks.append(event)

    def on_slow_iteration(self, event):
        self.iterations.append(event)


@pytest.fixture
def heard(stepped) -> Listener:
    """Listens to the stepped loop."""
    _, loop = stepped
    listener = Listener()
    loop.add_instrument(listener)
    return listener


def test_a_callback_at_the_threshold_is_slow_and_one_below_it_is_not(stepped, heard):
    """`slow_callback_duration` itself is slow, as in asyncio; a nanosecond less is not."""
    clock, loop = stepped
    assert loop.slow_callback_duration == 0.1
    loop.call_soon(clock.advance, 0.099_999_999)
    run_briefly(loop)
    assert heard.callbacks == []
    loop.call_soon(clock.advance, 0.1)
    run_briefly(loop)
    (event,) = heard.callbacks
    assert (event.loop_name, event.kind, event.duration, event.schedule_delay) == ("main", "callback", 0.1, 0.0)
    assert event.name == "obsloop.testing.StepClock.advance"
    assert loop.snapshot()["asyncio.eventloop.callback.slow"] == {(event.name,): 1}


def test_duration_and_delay_are_the_callbacks_own(stepped, heard):
    """The second of two waited for the first; the time that the listeners took is nobody's callback."""
    clock, loop = stepped

    class Slow:
        def on_slow_callback(self, event):
            clock.advance(5)

    loop.add_instrument(Slow())
    loop.call_soon(clock.advance, 0.25)
    loop.call_soon(clock.advance, 0.5)
    run_briefly(loop)
    assert [(e.duration, e.schedule_delay) for e in heard.callbacks] == [(0.25, 0.0), (0.5, 5.25)]
    snapshot = loop.snapshot()
    assert snapshot.value("asyncio.eventloop.time", "callback") == 0.75
    assert snapshot.value("asyncio.eventloop.time", "overhead") == 10.0


def test_the_standard_knob_is_the_only_one_and_takes_effect_at_once(stepped, heard):
    """Set before, between and during runs, on the loop itself; back to slow and to never."""
    clock, loop = stepped
    loop.slow_callback_duration = 0.5
    loop.call_soon(clock.advance, 0.4)
    run_briefly(loop)
    assert heard.callbacks == []
    loop.call_soon(setattr, loop, "slow_callback_duration", 0.2)
    loop.call_soon(loop.call_soon, clock.advance, 0.3)
    loop.call_soon(loop.call_later, 1, loop.stop)
    loop.run_forever()
    assert [e.duration for e in heard.callbacks] == [0.3]
    for never in (float("inf"), float("nan"), None, "never"):
        loop.slow_callback_duration = never
        loop.call_soon(clock.advance, 1000)
        run_briefly(loop)
        assert loop.slow_callback_duration is never
    assert len(heard.callbacks) == 1


def test_with_a_threshold_of_zero_everything_is_slow(stepped, heard):
    """As asyncio's debug mode would log it; and nothing breaks."""
    clock, loop = stepped
    loop.slow_callback_duration = 0
    for _ in range(200):
        loop.call_soon(clock.advance, 0)
    run_briefly(loop)
    assert len(heard.callbacks) == 200
    assert len(heard.iterations) == 1


def test_a_task_step_a_timer_and_a_threadsafe_call_have_their_kinds(stepped, heard):
    """The kind is the way onto the loop; a task's step has the coroutine's name and the task's."""
    clock, loop = stepped

    async def work() -> None:
        clock.advance(0.2)

    task = loop.create_task(work(), name="the job")
    loop.call_later(1, clock.advance, 0.3)
    loop.call_soon_threadsafe(clock.advance, 0.4)
    loop.call_later(2, loop.stop)
    loop.run_forever()
    assert task.done()
    assert {e.kind: e.duration for e in heard.callbacks} == {"task_step": 0.2, "timer": 0.3, "threadsafe": 0.4}
    (step,) = [e for e in heard.callbacks if e.kind == "task_step"]
    assert step.name.endswith("test_a_task_step_a_timer_and_a_threadsafe_call_have_their_kinds.<locals>.work")
    assert (step.filename, step.lineno, step.task_name) == (__file__, work.__code__.co_firstlineno, "the job")


def test_sixty_short_callbacks_are_a_slow_iteration(stepped, heard):
    """None is slow by itself; together they block as long as one of 300 ms, and the top says what they were."""
    clock, loop = stepped
    for i in range(60):
        loop.call_soon(clock.advance if i % 3 else lambda: clock.advance(0.005), *([0.005] if i % 3 else []))
    run_briefly(loop)
    assert heard.callbacks == []
    (event,) = heard.iterations
    assert event.duration == pytest.approx(0.3)
    (first, *spent), (second, *of_lambda), unnamed = event.top
    assert first == event.name == "obsloop.testing.StepClock.advance"
    assert second.endswith("<lambda>")
    assert spent == [pytest.approx(39 * 0.005), 39]
    assert of_lambda == [pytest.approx(19 * 0.005), 19]
    assert unnamed == ("(unnamed)", pytest.approx(2 * 0.005), 2)  # of the first eighth of the threshold


def test_a_crowd_of_tiny_callbacks_is_sampled(stepped, heard):
    """Twenty thousand of 10 us each: too short to be noted one by one, and named all the same."""
    clock, loop = stepped

    def tiny() -> None:
        clock.advance(10e-6)

    for _ in range(20_000):
        loop.call_soon(tiny)
    run_briefly(loop)
    (event,) = heard.iterations
    assert event.duration == pytest.approx(0.2)
    assert event.name == event.top[0][0]
    assert event.name.endswith("<locals>.tiny")
    assert event.top[0][1] == pytest.approx(0.2)
    assert event.top[0][2] == pytest.approx(20_000, rel=0.05)


def test_slow_iterations_have_a_threshold_of_their_own():
    """By default the slow callbacks'; as the settings say otherwise."""
    settings = obsloop.Settings(slow_iteration=0.5)
    with step_clock(lambda selector: obsloop.Loop(selector, settings=settings)) as (clock, loop):
        listener = Listener()
        loop.add_instrument(listener)
        for seconds in (0.2, 0.2):
            loop.call_soon(clock.advance, seconds)
        run_briefly(loop)
        assert len(listener.callbacks) == 2
        assert listener.iterations == []
        for seconds in (0.09,) * 6:
            loop.call_soon(clock.advance, seconds)
        run_briefly(loop)
        assert len(listener.callbacks) == 2
        assert [e.duration for e in listener.iterations] == [pytest.approx(0.54)]


def test_what_a_hook_schedules_runs_without_a_wait(stepped):
    """A hook at the end of an iteration comes between the loop's look at its queue and its wait: it must not wait."""
    clock, loop = stepped

    class Schedules:
        def on_slow_iteration(self, event):
            loop.call_soon(loop.stop)

    loop.add_instrument(Schedules())
    loop.call_soon(clock.advance, 0.2)
    loop.run_forever()


def test_an_instrument_may_come_and_go_from_within_a_hook(stepped):
    """The one that was added in a hook hears the next event, the one that removed itself no more."""
    clock, loop = stepped
    heard = Listener()

    class Once:
        def on_slow_callback(self, event):
            loop.remove_instrument(self)
            loop.add_instrument(heard)
            self.event = event

    once = Once()
    loop.add_instrument(once)
    for seconds in (0.2, 0.3):
        loop.call_soon(clock.advance, seconds)
    run_briefly(loop)
    assert once.event.duration == 0.2
    assert [e.duration for e in heard.callbacks] == [0.3]


def test_an_instrument_that_raises_is_logged_disabled_and_counted(stepped, heard, caplog):
    """Its other hooks go on, other instruments go on, and so does the program."""
    clock, loop = stepped

    class Raises:
        iterations = 0

        def on_slow_callback(self, event):
            raise LookupError("from the hook")

        def on_slow_iteration(self, event):
            self.iterations += 1

    raises = Raises()
    loop.add_instrument(raises)
    before = obsloop.process_snapshot().value("obsloop.instrument.disabled", "on_slow_callback")
    for _ in range(3):
        loop.call_soon(clock.advance, 0.2)
        run_briefly(loop)
    assert obsloop.process_snapshot().value("obsloop.instrument.disabled", "on_slow_callback") == before + 1
    assert (len(heard.callbacks), len(heard.iterations), raises.iterations) == (3, 3, 3)
    (record,) = [r for r in caplog.records if r.name == "obsloop"]
    assert "on_slow_callback of the instrument" in record.getMessage()
    assert record.exc_info[0] is LookupError


def test_slow_callbacks_are_logged_when_the_settings_say_so(caplog):
    """One line outside debug mode; by default none."""
    log.forked()  # one line per culprit in ten seconds, and a test before may have had it
    for wanted in (False, True):
        settings = obsloop.Settings(log_slow_callbacks=wanted, watchdog=False)
        with step_clock(lambda selector, s=settings: obsloop.Loop(selector, settings=s)) as (clock, loop):
            loop.call_soon(clock.advance, 0.2)
            run_briefly(loop)
            lines = [r.getMessage() for r in caplog.records if r.name == "obsloop"]
            assert len(lines) == wanted
    advance = "obsloop.testing.StepClock.advance (obsloop/testing.py:"
    assert lines[0].startswith(f"event loop blocked 0.20 s by {advance}")
    assert lines[0].endswith("its line is not known), cause unknown; loop main")


@pytest.mark.parametrize("debug", [False, True])
def test_in_debug_mode_asyncios_own_line_stays_as_it_is(stepped, heard, caplog, debug):
    """Exactly asyncio's line, once, in debug mode only; the event comes in both."""
    clock, loop = stepped
    loop.set_debug(debug)
    with caplog.at_level(logging.WARNING):
        loop.call_soon(clock.advance, 0.2)
        run_briefly(loop)
    lines = [r.getMessage() for r in caplog.records if r.name == "asyncio"]
    assert len(lines) == debug
    assert all(line.startswith("Executing <Handle ") and line.endswith(" took 0.200 seconds") for line in lines)
    assert [e.duration for e in heard.callbacks] == [0.2]


def test_a_hundred_names_and_then_other(clean_metrics):
    """The label is bounded, and what was folded is counted."""
    with step_clock() as (clock, loop):
        for i in range(103):
            namespace: dict = {"clock": clock}
            exec(f"def slow_{i}(): clock.advance(0.2)", namespace)
            loop.call_soon(namespace[f"slow_{i}"])
        run_briefly(loop)
        found = loop.snapshot()["asyncio.eventloop.callback.slow"]
        assert len(found) == 101
        assert found["_OTHER",] == 3
        assert sum(found.values()) == 103
        assert obsloop.process_snapshot().value("obsloop.dropped", "code.function.name") == 3


def test_a_loop_that_is_turned_while_it_runs_hears_of_slow_callbacks(clean_metrics):
    """Its own threshold and its exception handler come along."""
    heard = Listener()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.02
        loop.set_exception_handler(print)
        turned = obsloop.instrument(loop)
        assert turned.slow_callback_duration == 0.02
        assert turned.get_exception_handler() is print
        turned.add_instrument(heard)
        await asyncio.sleep(0)
        import time

        turned.call_soon(time.sleep, 0.03)
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert "time.sleep" in [event.name for event in heard.callbacks]
