"""Tasks: how many there are, how they end, how long they take, and whose steps the loop's time goes into."""

import asyncio
import contextlib
import gc
import random
import sys
import textwrap
import threading
import time
import weakref

import pytest

import obsloop
from obsloop.events import TaskDone
from obsloop.metrics import coroutine_times
from obsloop.metrics.counters import FINISHES
from obsloop.probes import tasks as probe
from obsloop.testing import Recorder
from tests.blocking.support import until
from tests.support import DELAY, DURATION, LIMIT, assert_holds, forget_everything, output, stepped

COMPILED = obsloop.core == "compiled"
EAGER = sys.version_info >= (3, 12)


def figures(snapshot):
    """Created, active, and how many ended how, where any did."""
    finished = {how: n for how in FINISHES if (n := snapshot.value("asyncio.task.finished", how))}
    return snapshot.value("asyncio.task.created"), snapshot.value("asyncio.task.active"), finished


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


async def nothing():
    pass


async def forever():
    await asyncio.get_running_loop().create_future()


async def fails():
    raise ValueError("on purpose")


# ---- how many, and how they end --------------------------------------------------------------------------------------


def test_tasks_are_counted_by_how_they_end(loop):
    """Three return, two raise, one is cancelled while it waits, one before it began; two wait on."""

    async def main():
        await asyncio.sleep(0)  # its own first step is over
        before = figures(loop.snapshot())
        ok = [asyncio.create_task(nothing()) for _ in range(3)]
        bad = [asyncio.create_task(fails()) for _ in range(2)]
        waiting = [asyncio.create_task(forever()) for _ in range(3)]
        await asyncio.gather(*ok, *bad, return_exceptions=True)
        early = asyncio.create_task(forever())
        for task in (early, waiting[0]):
            task.cancel()
        await asyncio.gather(early, waiting[0], return_exceptions=True)
        after = figures(loop.snapshot())
        for task in waiting[1:]:
            task.cancel()
        return before, after

    before, (created, active, finished) = run(loop, main())
    assert created - before[0] == 9
    assert active - before[1] == 2
    assert finished == {"ok": 3, "error": 2, "cancelled": 2}


def test_created_is_what_has_finished_and_what_is_active(loop):
    """Whatever a program does: gather, groups, time-outs, shields, tasks made by tasks, errors."""

    async def grow(depth):
        if depth:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(grow(depth - 1))
        else:
            await asyncio.sleep(random.random() / 1000)

    async def main():
        await grow(4)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(forever(), 0.01)
        await asyncio.shield(nothing())
        await asyncio.gather(fails(), forever_for(0.001), return_exceptions=True)
        created, active, finished = figures(loop.snapshot())
        assert created >= 3 + 9 + 27 + 81
        assert created == active + sum(finished.values())
        return finished

    async def forever_for(seconds):
        async with asyncio.timeout(seconds):
            await forever()

    assert run(loop, main())["error"] >= 2


def test_a_task_that_dies_pending_is_abandoned(loop):
    """Nobody holds it, and what it waits for is gone: asyncio reports it, and it is not active for ever."""

    async def main():
        asyncio.create_task(forever())  # noqa: RUF006 - that is the point
        await asyncio.sleep(0)
        before = figures(loop.snapshot())
        gc.collect()
        return before, figures(loop.snapshot())

    loop.set_exception_handler(lambda loop, context: None)
    (_, active_before, _), (_, active, finished) = run(loop, main())
    assert active == active_before - 1
    assert finished == {"abandoned": 1}


def test_tasks_that_die_pending_without_a_word_are_abandoned(loop):
    """``gather`` switches asyncio's report off for its children: 300 of them die, one is alive, and one counts as such.

    In rounds, so that new tasks get the addresses of dead ones.
    """

    async def main():
        await asyncio.sleep(0)
        before = figures(loop.snapshot())
        for _ in range(3):
            waits = asyncio.gather(*(forever() for _ in range(100)))
            await asyncio.sleep(0)
            del waits
            gc.collect()
        alive = asyncio.create_task(forever())
        await asyncio.sleep(0)
        after = figures(loop.snapshot())
        assert after == figures(loop.snapshot())
        alive.cancel()
        return before, after

    before, after = run(loop, main())
    assert after[0] - before[0] == 301
    assert after[1] - before[1] == 1
    assert after[2] == {"abandoned": 300}
    assert loop.snapshot().value("asyncio.task.oldest.age") == 0


def dead_then_new(make):
    """A coroutine of a task that lives where one has died that was created 1,000 s before, in a measurement."""

    async def at_old_address(clock):
        with obsloop.measure_tasks() as measured:
            waits = asyncio.gather(*(forever() for _ in range(50)))
            await asyncio.sleep(0)
        addresses = {id(task) for task in asyncio.all_tasks()}
        del waits
        gc.collect()
        clock.advance(1_000)
        kept = []
        for _ in range(200):
            task = make()
            if id(task) in addresses:
                return measured.times(), measured, task
            kept.append(task)
        raise AssertionError("no task at an address that was used before")

    return at_old_address


@pytest.mark.parametrize("how", ["plain", "factory", "eager"])
def test_a_task_at_a_dead_ones_address_inherits_nothing(how):
    """No age, no duration, no measurement: it is a new task, also where no reading has come between."""
    if how == "eager" and not EAGER:
        pytest.skip("asyncio has eager tasks since 3.12")
    with stepped() as (clock, loop):

        async def short():
            clock.advance(1)
            await asyncio.sleep(4)
            return obsloop.task_times()

        def make():
            return loop.create_task(short())

        async def main():
            if how == "factory":
                loop.set_task_factory(FACTORIES["plain"])
            if how == "eager":
                loop.set_task_factory(asyncio.eager_task_factory)
            before, measured, task = await dead_then_new(make)(clock)
            times = await task
            assert measured.times() == before
            return times

        times = loop.run_until_complete(main())
        assert sum(times[:3]) <= 1_000  # its own age: other new tasks may have run before it
        snapshot = loop.snapshot()
        created, active, finished = figures(snapshot)
        assert created == active + sum(finished.values())
        assert finished["abandoned"] == 50
        # Only `main` and what waits for it have lived that long.
        assert sum(snapshot.histogram("asyncio.task.duration").bucket_counts[-3:]) <= 2


def test_a_task_made_while_the_loop_stands_is_new_too(loop):
    """The address is of one that died when the loop ran before."""

    async def dies():
        waits = asyncio.gather(*(forever() for _ in range(50)))
        await asyncio.sleep(0)
        del waits
        gc.collect()

    loop.run_until_complete(dies())
    tasks = [loop.create_task(nothing()) for _ in range(50)]
    loop.run_until_complete(asyncio.wait(tasks))
    # Another thread may be reading just now: then it is that one which calls the roll.
    until(lambda: figures(loop.snapshot())[1] == 0)
    created, active, finished = figures(loop.snapshot())
    assert (active, finished) == (0, {"ok": 52, "abandoned": 50})
    assert created == 102


def test_readings_from_a_thread_take_nobody_for_dead(loop):
    """Tasks come and go while another thread reads without a pause: what is alive, or just done, is never abandoned."""
    stop = threading.Event()
    readings = []

    def read():
        while not stop.is_set():
            readings.append(figures(loop.snapshot()))

    async def main():
        end = time.perf_counter() + 0.5
        waiting = [asyncio.create_task(forever()) for _ in range(20)]
        while time.perf_counter() < end:
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(50)), nothing(), nothing())
        for task in waiting:
            task.cancel()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        run(loop, main())
    finally:
        stop.set()
        thread.join()
    assert len(readings) > 3
    assert all("abandoned" not in finished for _, _, finished in readings)
    created, active, finished = figures(loop.snapshot())
    assert "abandoned" not in finished
    assert created == active + sum(finished.values())


def test_a_task_whose_last_step_is_not_over_is_not_taken_for_dead():
    """It is done already when it wakes those that wait for it, and another thread reads at that moment."""
    read = []

    class Slow(obsloop.Loop):
        def call_soon(self, callback, *args, context=None):
            task = asyncio.current_task(self) if self.is_running() else None
            if task is not None and task.done():
                thread = threading.Thread(target=lambda: read.append(figures(self.snapshot())))
                thread.start()
                thread.join()
            return super().call_soon(callback, *args, context=context)

    async def waits():
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def main():
        await asyncio.create_task(waits())

    forget_everything()
    loop = Slow(settings=obsloop.Settings(name="main"))
    try:
        run(loop, main())
        created, active, finished = figures(loop.snapshot())
    finally:
        loop.close()
    assert read
    assert all("abandoned" not in finished for _, _, finished in [*read, (created, active, finished)])
    assert created == active + sum(finished.values())


def test_a_roll_call_that_costs_much_is_not_taken_at_each_reading(loop, monkeypatch):
    """Of very many tasks it takes its time: then it is taken again after a hundred times that."""
    calls = []
    pending = probe._pending

    def counted(loops):
        calls.append(1)
        return pending(loops)

    monkeypatch.setattr(probe, "_pending", counted)

    monkeypatch.setattr(probe, "_CHEAP_NS", 1 << 60)  # on a busy machine, the first two may cost more than that

    async def main():
        await asyncio.sleep(0)
        loop.snapshot()
        loop.snapshot()
        monkeypatch.setattr(probe, "_CHEAP_NS", -1)
        monkeypatch.setattr(probe, "_SHARE", 1 << 40)
        for _ in range(3):
            loop.snapshot()

    run(loop, main())
    assert len(calls) == 3


def test_what_a_closed_loop_leaves_behind_is_abandoned():
    """Its tasks will never end: the books are closed with it, and the next loop of the name begins with none."""
    forget_everything()
    loop = obsloop.Loop(settings=obsloop.Settings(name="main"))
    left = [loop.create_task(forever()) for _ in range(5)]
    run(loop, nothing())
    loop.close()
    for task in left:
        task._log_destroy_pending = False
    created, active, finished = figures(obsloop.snapshots()["main"])
    assert (active, finished.get("abandoned")) == (0, 5)
    assert created == sum(finished.values())


def test_nothing_keeps_a_task_alive(loop):
    """It is gone as soon as the program lets go of it, and with it what it returned."""

    class Result:
        pass

    async def makes():
        await asyncio.sleep(0)
        return Result()

    async def main():
        task = asyncio.create_task(makes())
        dead = weakref.ref(task), weakref.ref(await task)
        del task
        await asyncio.sleep(0)
        return [ref() for ref in dead]

    gc.disable()
    try:
        assert run(loop, main()) == [None, None]
    finally:
        gc.enable()


# ---- the program's own factories -------------------------------------------------------------------------------------


class OwnTask(asyncio.Task):
    """A class of the program's own."""


FACTORIES = {
    "plain": lambda loop, coro: asyncio.Task(coro, loop=loop),
    "keywords": lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs),
    "own class": lambda loop, coro, **kwargs: OwnTask(coro, loop=loop, **kwargs),
    "python class": lambda loop, coro, **kwargs: asyncio.tasks._PyTask(coro, loop=loop, **kwargs),
}
if EAGER:
    FACTORIES["eager"] = asyncio.eager_task_factory


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_of_the_programs_is_respected_and_its_tasks_are_counted(loop, name):
    """It is called, shown as the factory, and what it makes is counted like any task."""
    factory = FACTORIES[name]

    async def main():
        await asyncio.sleep(0)
        created, active, finished = figures(loop.snapshot())
        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        tasks = [asyncio.create_task(c) for c in (nothing(), asyncio.sleep(0), fails(), forever())]
        loop.set_task_factory(None)
        await asyncio.gather(*tasks[:3], return_exceptions=True)
        now = figures(loop.snapshot())
        assert type(tasks[0]) is {"own class": OwnTask, "python class": asyncio.tasks._PyTask}.get(name, asyncio.Task)
        tasks[3].cancel()
        return now[0] - created, now[1] - active, {how: n - finished.get(how, 0) for how, n in now[2].items()}

    assert run(loop, main()) == (4, 1, {"ok": 2, "error": 1})


def test_what_a_factory_makes_that_is_no_task_is_left_alone(loop):
    """A future of the program's own, whose steps nobody knows: nothing is counted, and it works."""

    class Odd:
        def __init__(self, coro):
            coro.close()

        def done(self):
            raise AssertionError("not for us")

        def set_name(self, name):
            pass

    async def main():
        before = loop.snapshot().value("asyncio.task.created")
        loop.set_task_factory(lambda loop, coro, **kwargs: Odd(coro))
        made = loop.create_task(nothing())
        loop.set_task_factory(None)
        return type(made), loop.snapshot().value("asyncio.task.created") - before

    assert run(loop, main()) == (Odd, 0)


def test_a_task_made_by_hand_is_counted_when_it_has_ended(loop):
    """``asyncio.Task(coro)`` passes by ``create_task``."""

    async def main():
        await asyncio.sleep(0)
        before = figures(loop.snapshot())
        await asyncio.Task(asyncio.sleep(0.001), loop=loop)
        now = figures(loop.snapshot())
        return now[0] - before[0], now[1] - before[1], now[2]

    assert run(loop, main()) == (1, 0, {"ok": 1})


def test_tasks_from_before_instrument_are_counted_when_they_are_seen():
    """A loop is observed in place while its tasks wait: each is counted, at the latest when it ends."""
    forget_everything()

    async def main():
        loop = asyncio.get_running_loop()
        old = [asyncio.create_task(asyncio.sleep(0.02)) for _ in range(4)]
        await asyncio.sleep(0)
        obsloop.instrument(settings=obsloop.Settings(name="main"))
        await asyncio.gather(*old)
        return figures(loop.snapshot())

    created, active, finished = asyncio.run(main())
    assert finished == {"ok": 4}
    assert created == active + 4


# ---- how long --------------------------------------------------------------------------------------------------------


def test_duration_and_first_step_are_what_passed():
    """By a clock in the test's hands: created at 0, first step after 2 s of others' work, done 5 s later."""
    with stepped() as (clock, loop):

        async def waits():
            await asyncio.sleep(5)

        async def main():
            loop.call_soon(clock.advance, 2)
            await asyncio.create_task(waits())

        loop.run_until_complete(main())
        snapshot = loop.snapshot()
        assert_holds(snapshot.histogram("asyncio.task.first_step.delay"), [0, 2])  # main's own, and that
        assert_holds(snapshot.histogram("asyncio.task.duration"), [7, 7])
        # First steps are steps, too.
        assert snapshot.histogram(DELAY, "task_step").count == snapshot.histogram(DURATION, "task_step").count == 4


def test_the_oldest_task_is_found(loop):
    """Its age is from its creation until now; 0 when there is none."""

    async def main():
        old = asyncio.create_task(forever())
        await asyncio.sleep(0.05)
        young = asyncio.create_task(forever())
        await asyncio.sleep(0)
        with_old = loop.snapshot().value("asyncio.task.oldest.age")
        for task in (old, young):
            task.cancel()
        return with_old

    assert 0.05 <= run(loop, main()) < LIMIT
    assert loop.snapshot().value("asyncio.task.oldest.age") == 0


def test_the_event_of_a_task_that_failed(loop):
    """It has the coroutine, the error's class, the duration, and no word of what was raised."""

    async def fails_later():
        time.sleep(0.01)
        await asyncio.sleep(0.02)
        raise KeyError("secret")

    with Recorder() as events:
        with pytest.raises(KeyError):
            run(loop, named(fails_later(), "import-7"))
        run(loop, nothing())
    event = next(e for e in events.events if isinstance(e, TaskDone))
    assert event.name.endswith("fails_later")
    assert (event.task_name, event.outcome, event.error_type) == ("import-7", "error", "KeyError")
    assert 0.03 <= event.duration < LIMIT
    assert "secret" not in repr(event)
    if COMPILED:
        assert 0.01 <= event.running < event.duration
        assert event.steps == 2
    else:
        assert (event.running, event.waiting, event.steps) == (None, None, None)


async def named(coro, name):
    await asyncio.create_task(coro, name=name)


def test_the_event_of_a_task_that_took_long():
    """``slow_task`` is the threshold; what is faster and went well is not told."""
    forget_everything()
    settings = obsloop.Settings(name="main", slow_task=0.05)
    with Recorder() as events:
        obsloop.run(together(asyncio.sleep(0.06), asyncio.sleep(0.001)), settings=settings)
    told = [e for e in events.events if isinstance(e, TaskDone)]
    assert [(e.name, e.outcome) for e in told] == [
        ("asyncio.tasks.sleep", "ok"), (f"{__name__}.together", "ok"),
    ]  # fmt: skip


async def together(*coros):
    await asyncio.gather(*coros)


def test_a_task_class_in_the_place_of_asyncios(loop, monkeypatch):
    """asyncio looks its class up at each creation, and so do we: the pure one, as CPython's tests put it there."""

    async def main():
        monkeypatch.setattr(asyncio.tasks, "Task", Own)
        task = loop.create_task(asyncio.sleep(0))
        assert type(task) is Own
        await task
        return loop.snapshot().value("asyncio.task.finished", "ok")

    class Own(asyncio.Task):
        pass

    assert run(loop, main()) == 1


# ---- whose time ------------------------------------------------------------------------------------------------------


async def spins(seconds, steps):
    """Spin in each step; how long that took in all. A machine that is busy takes the CPU away, and it takes longer."""
    spent = 0.0
    for _ in range(steps):
        began = now = time.perf_counter()
        while now - began < seconds:
            now = time.perf_counter()
        spent += now - began
        await asyncio.sleep(0)
    return spent


async def short(seconds, steps):
    return await spins(seconds, steps)


async def middle(seconds, steps):
    return await spins(seconds, steps)


async def long_ones(seconds, steps):
    return await spins(seconds, steps)


def test_each_coroutines_time_is_found_again(loop):
    """A known mix: what the loop itself measured of all steps, divided as it was put in."""
    steps = 1_000 if COMPILED else 4_000  # the pure core measures one step in sixteen

    async def main():
        # Steps of 10, 20 and 60 us. Some of each at a time, as programs do it.
        kinds = {short: 10e-6, middle: 20e-6, long_ones: 60e-6}
        async with asyncio.TaskGroup() as group:
            tasks = [(kind, group.create_task(kind(us, steps))) for _ in range(4) for kind, us in kinds.items()]
        return {kind.__name__: sum(task.result() for of, task in tasks if of is kind) for kind in kinds}

    put_in = run(loop, main())
    snapshot = loop.snapshot()
    found = {name.rpartition(".")[2]: spent for name, spent in snapshot.coroutines.items()}
    whole = snapshot.histogram(DURATION, "task_step")
    assert sum(spent.steps for spent in snapshot.coroutines.values()) == pytest.approx(whole.count, rel=0.05)
    for name in put_in:
        assert found[name].steps == pytest.approx(4 * (steps + 1), rel=0.001 if COMPILED else 0.1)
        assert found[name].filename == __file__
    if COMPILED:
        # Each has all that was put into it, and of the rest, the steps' own cost, no more than there is.
        rest = whole.sum - sum(put_in.values())
        for name, seconds in put_in.items():
            assert seconds <= found[name].time <= seconds + rest, name
        assert sum(spent.time for spent in snapshot.coroutines.values()) == pytest.approx(whole.sum, rel=1e-6)
    # The pure core's estimate of the time is judged in the next test, by a clock that no machine disturbs.


def test_the_estimate_is_within_five_per_cent():
    """Of coroutines of which each takes over a hundredth of the time; by a clock that only the steps move."""
    with stepped() as (clock, loop):
        shares = {"a": 1, "b": 2, "c": 5, "d": 40}  # microseconds a step

        def of(name):
            async def steps(n):
                for _ in range(n):
                    clock.advance(shares[name] * 1e-6)
                    await asyncio.sleep(0)

            steps.__qualname__ = name
            steps.__code__ = steps.__code__.replace(co_name=name, co_qualname=name)
            return steps

        async def main():
            await asyncio.gather(*(of(name)(40_000) for name in shares))

        loop.run_until_complete(main())
        found = {name.rpartition(".")[2]: spent for name, spent in loop.snapshot().coroutines.items()}
        for name, us in shares.items():
            assert found[name].time == pytest.approx(40_000 * us * 1e-6, rel=0.05 if not COMPILED else 1e-9), name


def test_the_busiest_are_shown_by_name_and_the_rest_together(loop):
    """A hundred names in the series, each of which keeps its place; all of them in the snapshot."""

    def of(i):
        scope = {"clock": time.perf_counter}
        exec(f"async def work_{i}(seconds):\n  end = clock() + seconds\n  while clock() < end: pass", scope)
        return scope[f"work_{i}"]

    async def main():
        for i in range(130):  # long enough to be counted one by one in both cores
            await asyncio.create_task(of(i)(0.0015 + 1e-5 * i))

    run(loop, main())
    snapshot = loop.snapshot()
    # The service of an earlier test may have read meanwhile, and given places to the busiest until then: here new ones.
    shown = coroutine_times.TopCoroutines().seconds(snapshot.coroutines)
    assert [name for (name,) in shown] == [*list(snapshot.coroutines)[:100], "_OTHER"]
    assert len(snapshot["asyncio.eventloop.callback.time"]) == 101
    assert len([name for name in snapshot.coroutines if ".work_" in name or name.startswith("work_")]) == 130
    total = sum(spent.time for spent in snapshot.coroutines.values())
    assert sum(shown.values()) == pytest.approx(total)
    assert list(snapshot.coroutines.values()) == sorted(snapshot.coroutines.values(), reverse=True)


def test_functions_past_the_last_number_are_counted_together(loop, monkeypatch):
    """With room for no more, 30 functions share one number: 30 are dropped, however many steps and tasks they have.

    Nor is Python code called for their steps: only where a task is made.
    """
    monkeypatch.setattr(coroutine_times, "MAX_KNOWN", len(coroutine_times._known) - 1 - coroutine_times.REST)
    monkeypatch.setattr(coroutine_times, "_sharing", set())
    monkeypatch.setitem(coroutine_times.dropped, "coroutine", 0)
    asked = []
    number_of_task = coroutine_times.number_of_task
    monkeypatch.setattr(coroutine_times, "number_of_task", lambda task: asked.append(task) or number_of_task(task))

    def of(i):
        scope = {"sleep": asyncio.sleep, "clock": time.perf_counter}
        source = f"""
            async def work_{i}():
                for _ in range(20):
                    end = clock() + 0.0003  # long enough to be counted one by one in both cores
                    while clock() < end:
                        pass
                    await sleep(0)
        """
        exec(textwrap.dedent(source), scope)
        return scope[f"work_{i}"]

    async def main():
        functions = [of(i) for i in range(30)]
        for _ in range(2):
            await asyncio.gather(*(function() for function in functions))

    loop.slow_callback_duration = 0.0003
    run(loop, main())
    # The functions of this test that are not made here (`main`, `wait_for`) may be new, too.
    assert 30 <= obsloop.process_snapshot().value("obsloop.dropped", "coroutine") <= 32
    steps = loop.snapshot().coroutines["_OTHER"].steps
    assert steps >= 30 * 2 * 20
    if COMPILED:
        assert len(asked) < steps / 10


# ---- the running task's own times ------------------------------------------------------------------------------------


def test_a_task_learns_where_its_time_went():
    """3 s in its steps, 2 s ready while another ran, 4 s asleep: by a clock in the test's hands."""
    with stepped() as (clock, loop):

        async def main():
            obsloop.task_times()  # from now on in the pure core, too
            clock.advance(1)
            loop.call_soon(clock.advance, 2)
            await asyncio.sleep(0)
            clock.advance(2)
            await asyncio.sleep(4)
            return obsloop.task_times()

        assert loop.run_until_complete(main()) == (3, 2, 4, 3)


def test_the_times_of_inner_tasks_are_measured_with_it():
    """A request with two inner tasks, one of which has an inner task of its own; a stranger's are not in it."""
    with stepped() as (clock, loop):

        async def works(seconds):
            clock.advance(seconds)
            await asyncio.sleep(0)
            clock.advance(seconds)

        async def inner():
            clock.advance(10)
            await asyncio.create_task(works(100))

        async def main():
            stranger = asyncio.create_task(works(10_000))
            clock.advance(3)
            with obsloop.measure_tasks() as measured:
                assert measured.times() == (0, 0, 0, 1)
                clock.advance(1)
                assert measured.times() == (1, 0, 0, 1)
                await asyncio.gather(asyncio.create_task(works(1_000)), asyncio.create_task(inner()))
                clock.advance(1)
            clock.advance(5)
            await stranger
            return measured.times()

        times = loop.run_until_complete(main())
        assert times.running == 1 + 2_000 + 10 + 200 + 1
        # It waited for nothing but its inner tasks; those waited for the stranger and for each other.
        assert times.waiting >= 10_000
        assert times.suspended >= 2_210


def test_nested_measurements_are_both_right():
    """The inner block's is the inner block's alone, the outer one's is both."""
    with stepped() as (clock, loop):

        async def child():
            clock.advance(7)

        async def main():
            with obsloop.measure_tasks() as outer:
                clock.advance(1)
                with obsloop.measure_tasks() as inner:
                    clock.advance(2)
                    await asyncio.create_task(child())
                    clock.advance(3)
                clock.advance(4)
                await asyncio.create_task(child())
            return outer.times().running, inner.times().running

        assert loop.run_until_complete(main()) == (1 + 2 + 7 + 3 + 4 + 7, 2 + 7 + 3)


def test_what_outlives_the_block_is_not_counted():
    """An inner task goes on when the block is closed: the figures stand still."""
    with stepped() as (clock, loop):

        async def goes_on():
            clock.advance(1)
            await asyncio.sleep(1)
            clock.advance(50)

        async def main():
            with obsloop.measure_tasks() as measured:
                task = asyncio.create_task(goes_on())
                await asyncio.sleep(0)
            closed = measured.times()
            await task
            return closed.running, measured.times() == closed

        assert loop.run_until_complete(main()) == (1, True)


def test_outside_of_a_task_there_are_no_times(loop):
    """The error says what was wrong and what to do; on a stock loop as well."""
    with pytest.raises(RuntimeError, match=r"task_times\(\) was called outside of a task: call it in a coroutine"):
        obsloop.task_times()

    async def asks():
        with pytest.raises(RuntimeError, match=r"measure_tasks\(\): the running loop does not keep .*obsloop run"):
            obsloop.measure_tasks().__enter__()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asks())


# ---- tasks that begin at once ----------------------------------------------------------------------------------------

eager = pytest.mark.skipif(not EAGER, reason="asyncio has eager tasks since 3.12")


@contextlib.contextmanager
def stepped_eager():
    """As `stepped`, with asyncio's own factory for tasks that begin at once."""
    with stepped() as (clock, loop):
        if EAGER:
            loop.set_task_factory(asyncio.eager_task_factory)
        yield clock, loop


@eager
def test_an_eager_tasks_first_step_is_its_own():
    """3 s before its creation, 5 s in it, 2 s after it: whose time it is, by task and by coroutine."""
    with stepped_eager() as (clock, loop):

        async def child():
            clock.advance(5)
            await asyncio.sleep(10)
            clock.advance(1)
            return obsloop.task_times()

        async def main():
            obsloop.task_times()
            clock.advance(3)
            task = asyncio.create_task(child())
            clock.advance(2)
            mine = obsloop.task_times()
            return mine, await task

        mine, childs = loop.run_until_complete(main())
        assert mine == (3 + 2, 0, 5, 1)  # it was not running while its child was
        # In the pure core its times begin where it asks: in its last step.
        assert childs == ((6, 0, 10, 2) if COMPILED else (1, 0, 0, 1))
        times = {name.rpartition(".")[2]: spent.time for name, spent in loop.snapshot().coroutines.items()}
        assert times["child"] == 6
        assert times["main"] == 5


@eager
def test_a_measurement_that_begins_in_an_eager_first_step():
    """A request in an eager task: all of it is measured, and the tasks that it makes, eager ones and their own too."""
    with stepped_eager() as (clock, loop):

        async def grandchild():
            clock.advance(100)

        async def child():
            clock.advance(20)
            await asyncio.create_task(grandchild())
            await asyncio.sleep(1)
            clock.advance(30)

        async def request():
            with obsloop.measure_tasks() as measured:
                clock.advance(1)
                await asyncio.create_task(child())
                clock.advance(2)
            return measured.times()

        async def main():
            clock.advance(7)
            task = asyncio.create_task(request())
            clock.advance(9)
            return await task

        times = loop.run_until_complete(main())
        assert times.running == 1 + 20 + 100 + 30 + 2
        assert figures(loop.snapshot())[1:] == (0, {"ok": 4})
        assert figures(loop.snapshot())[0] == 4


@eager
def test_an_eager_task_that_measures_within_a_measurement():
    """The inner figures are the eager task's, the outer ones both tasks'."""
    with stepped_eager() as (clock, loop):

        async def inner():
            with obsloop.measure_tasks() as measured:
                clock.advance(4)
                await asyncio.sleep(1)
                clock.advance(8)
            return measured.times().running

        async def main():
            with obsloop.measure_tasks() as measured:
                clock.advance(1)
                task = asyncio.create_task(inner())
                clock.advance(2)
                inners = await task
            return measured.times().running, inners

        assert loop.run_until_complete(main()) == (1 + 4 + 2 + 8, 4 + 8)


# ---- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_what_a_live_task_costs_in_memory():
    """Of 100,000, against the stock loop: 64 bytes; in the pure core an entry of a dictionary and two integers."""
    source = """
        import asyncio, gc, obsloop

        gc.disable()  # of so many objects it would take its time, and be told of

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096

        async def main():
            loop = asyncio.get_running_loop()
            future = loop.create_future()

            async def waits():
                await future

            warm = [asyncio.create_task(waits()) for _ in range(1000)]
            await asyncio.sleep(0)
            before = resident()
            tasks = [asyncio.create_task(waits()) for _ in range(100_000)]
            await asyncio.sleep(0)
            print(resident() - before)
            future.set_result(None)
            await asyncio.gather(*tasks, *warm)

        with asyncio.Runner(loop_factory={}) as runner:
            runner.run(main())
    """
    ours, stock = (
        min(int(output(source.replace("{}", factory), OBSLOOP_WATCHDOG="0")) for _ in range(2))
        for factory in ("obsloop.new_event_loop", "asyncio.SelectorEventLoop")
    )
    assert (ours - stock) / 100_000 <= (64 if COMPILED else 160)
