"""Tasks that do not let others run: named while it lasts, once, and nobody else is."""

import asyncio
import time

import obsloop
from obsloop import events


async def compute(seconds: float) -> None:
    await asyncio.sleep(0.05)
    time.sleep(seconds)  # a step of this length


async def spin() -> None:
    while True:
        await asyncio.sleep(0)


def run(main, **settings):
    return obsloop.run(main(), settings=obsloop.Settings(name="yields", **settings))


def found(name="yields"):
    return obsloop.snapshots()[name].value("asyncio.task.lint", "never_yields")


def test_a_step_that_lasts_is_told_of_while_it_lasts(quick, told):
    """A step of one second, with a limit of 0.2: told of before it ends, by task, coroutine, file and line; once."""
    has_listeners = []

    class Instrument:
        def on_task_lint(self, event):
            has_listeners.append((time.monotonic(), event))

    async def main():
        asyncio.get_running_loop().add_instrument(Instrument())
        await asyncio.gather(asyncio.create_task(compute(1.0), name="heavy"), asyncio.sleep(0.2))
        return time.monotonic()

    over = run(main, never_yields_after=0.2)
    ((at, event),) = has_listeners
    assert at < over
    assert (event.lint, event.loop_name, event.count) == ("never_yields", "yields", 1)
    assert (event.name, event.task_name) == (f"{__name__}.compute", "heavy")
    assert (event.filename, event.lineno) == (__file__, compute.__code__.co_firstlineno)
    assert 0.2 <= event.duration < 1.0
    assert event.detail == f"at {__file__}:{compute.__code__.co_firstlineno + 2} in compute"
    assert event.last_seen - event.started_at >= 0.2
    assert found() == 1
    assert [e.lint for e in told.lints] == ["never_yields"]


def busy(seconds: float) -> None:
    """What a route calls."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_below_a_servers_coroutine_the_programs_function_is_named(quick, told):
    """The task's coroutine is the server's for every route; the step is named after what ran in it."""

    async def server():
        busy(1.0)

    async def main():
        await asyncio.create_task(server(), name="request")

    run(main, never_yields_after=0.2)
    [event] = told.lints
    assert (event.name, event.task_name) == (f"{__name__}.busy", "request")
    assert event.detail.endswith("in busy")


def test_each_long_step_counts_and_one_is_told(quick, told, caplog):
    """Three of them within a minute are three findings and one event. The log has lines about the blocks instead."""

    async def main():
        for i in range(3):
            await asyncio.create_task(compute(0.6), name=f"heavy {i}")

    run(main, never_yields_after=0.3)  # more than a busy machine takes for a short step
    assert found() == 3
    assert [event.task_name for event in told.lints] == ["heavy 0"]
    assert "has not let others run for" in told.lints[0].message
    assert not [r for r in caplog.records if r.getMessage().startswith("never_yields")]


def test_by_default_it_is_ten_slow_callbacks_and_at_least_a_second():
    """A limit follows ``slow_callback_duration``, and is a setting."""
    from obsloop.tasks.lints.never_yields import limit_ns

    loop = obsloop.new_event_loop(obsloop.Settings())
    other = obsloop.new_event_loop(obsloop.Settings(never_yields_after=0.25))
    try:
        assert limit_ns(loop._obsloop) == 1_000_000_000
        loop.slow_callback_duration = 0.3
        assert limit_ns(loop._obsloop) == 3_000_000_000
        assert limit_ns(other._obsloop) == 250_000_000
    finally:
        loop.close()
        other.close()


def test_a_task_that_gives_way_only_to_go_on_is_told_of(quick, told, stopping):
    """It spins, with 0.15 s as the limit for a step: after ten times that. Its neighbours, who sleep, are not."""

    async def tick():
        while True:
            await asyncio.sleep(0.01)

    async def main():
        began = time.time()
        tasks = [asyncio.create_task(spin(), name="spinner"), asyncio.create_task(tick()), asyncio.create_task(tick())]
        async with stopping(*tasks):
            await asyncio.to_thread(told.wait_for, events.TaskLint, 30)
            await asyncio.sleep(0.5)
        return began

    began = run(main, never_yields_after=0.15)  # more than a busy machine takes for a short step
    (event,) = told.lints
    assert (event.lint, event.task_name, event.name) == ("never_yields", "spinner", f"{__name__}.spin")
    assert event.duration >= 1.5
    assert event.started_at >= began
    first = spin.__code__.co_firstlineno
    assert event.detail in {f"at {__file__}:{first + line} in spin" for line in (1, 2)}  # it is in both lines
    assert "without ever waiting" in event.message
    assert found() == 1


def test_twice_as_many_are_told_of_again_and_three_are_not(looked_at, told, stopping):
    """One spinner, then two more: 1 and then 3 are told, a fourth is only counted."""

    async def main(looking):
        tasks = []

        async def add(n, looks=15):
            tasks.extend(asyncio.create_task(spin()) for _ in range(n))
            for _ in range(looks):
                await looking.look(1.0)
                await asyncio.sleep(0)

        try:
            for n in (1, 2, 1):
                await add(n)
        finally:
            async with stopping(*tasks):
                pass

    looked_at(main, never_yields_after=1.0)
    assert [event.count for event in told.lints] == [1, 3]
    assert found("looked at") == 4


def test_a_loop_that_is_busy_with_many_short_steps_is_healthy(looked_at, told, stopping):
    """Tasks hand a ball to each other so that no poll ever waits, look by look: each waits for a future in between."""

    async def play(mine, other):
        while True:
            await mine.get()
            other.put_nowait(None)

    async def main(looking):
        queues = [asyncio.Queue() for _ in range(3)]
        tasks = [asyncio.create_task(play(queues[i], queues[i - 1])) for i in range(3)]
        queues[0].put_nowait(None)
        queues[1].put_nowait(None)
        async with stopping(*tasks):
            for _ in range(30):
                await looking.look(1.0)
        assert looking.all.always_ready._loops

    looked_at(main, never_yields_after=1.0)
    assert told.lints == []
