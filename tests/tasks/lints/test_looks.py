"""The looks themselves: bounded however many tasks there are, cheap, off when not wanted, and harmless."""

import asyncio
import json
import os
import time

import pytest

import obsloop
from obsloop.tasks.lints import findings, growing, never_woken, runner, scan
from obsloop.testing import StepClock
from tests.support import output


async def lost(i=0):
    future = asyncio.get_running_loop().create_future()
    await future


def test_a_hundred_thousand_tasks_are_looked_at_in_bounded_slices(looked_at, monkeypatch):
    """A tenth of them, in slices of 256 at most; references are counted of 200 at most; the rest by their share."""
    counted, seen = [], []
    real_count, real_see = never_woken.count, runner._Lints._see

    def count(ref, **kwargs):
        counted.append(1)
        return real_count(ref, **kwargs)

    def see(self, now, ref):
        seen.append(1)
        real_see(self, now, ref)

    async def main(looking):
        tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(100_000)]
        await asyncio.sleep(0)
        monkeypatch.setattr(never_woken, "count", count)
        monkeypatch.setattr(runner._Lints, "_see", see)
        await looking.look()
        counted.clear()
        seen.clear()
        slices = await looking.look()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return slices

    slices = looked_at(main)
    assert len(seen) <= scan.MAX_LOOKED
    assert slices >= len(seen) // runner.SLICE
    assert len(counted) <= never_woken.MAX_CHECKED
    assert len(seen) > 9_000


def test_the_share_that_is_looked_at_stands_for_all(looked_at):
    """30,000 sleepers and 10,000 others: the look's numbers are estimates of these."""
    found = {}

    async def other():
        await asyncio.sleep(3600)

    async def main(looking):
        tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(30_000)]
        tasks += [asyncio.create_task(other()) for _ in range(10_000)]
        await asyncio.sleep(0)
        real = growing.Growing.end

        def end(self, now):
            found.update({kind.key[-1]: kind.n * now.every for kind in now.kinds.values()})
            real(self, now)

        growing.Growing.end = end
        try:
            await looking.look()
        finally:
            growing.Growing.end = real
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    looked_at(main)
    assert found["sleep"] == pytest.approx(30_000, rel=0.1)
    assert next(n for name, n in found.items() if name.endswith("other")) == pytest.approx(10_000, rel=0.1)


def test_who_waits_for_an_answer_gets_its_turn_however_many_there_are(looked_at, told, monkeypatch):
    """Of more than one look counts the references of, others come at the next: all 50 are found."""
    monkeypatch.setattr(never_woken, "MAX_CHECKED", 10)

    async def main(looking):
        tasks = [asyncio.create_task(lost(i)) for i in range(50)]
        await asyncio.sleep(0)
        for _ in range(20):
            await looking.look(10.0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    looked_at(main)
    assert obsloop.snapshots()["looked at"].value("asyncio.task.lint", "never_woken") == 50


def test_tables_are_bounded_and_what_finds_no_room_is_counted(looked_at, told, monkeypatch):
    """Room for ten suspects, and for five groups: what is too much is dropped, and said so."""
    monkeypatch.setattr(never_woken, "MAX_SUSPECTS", 10)
    monkeypatch.setattr(growing, "MAX_KINDS", 1)

    async def main(looking):
        tasks = [asyncio.create_task(lost(i)) for i in range(25)]
        await asyncio.sleep(0)
        await looking.look(10.0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    looked_at(main)
    assert obsloop.process_snapshot().value("obsloop.dropped", "task_lint") >= 15
    groups = findings.Groups()
    monkeypatch.setattr(findings, "MAX_GROUPS", 5)
    assert [groups.is_news((i,), 1) for i in range(7)] == [True] * 5 + [False] * 2


def test_the_last_hundred_findings_are_kept():
    """And how many there were before them."""
    obs = obsloop.new_event_loop(obsloop.Settings(name="kept"))
    try:
        for i in range(130):
            findings.tell(obs._obsloop, "growing", scan.Site(f"f{i}", "", 0), "grows", log=False)
    finally:
        obs.close()
    recent = findings.kept()
    assert len(recent.events) == 100
    assert recent.older == 30
    assert recent.events[0].name == "f129"


def test_the_next_look_comes_the_later_the_more_this_one_cost(monkeypatch):
    """One thousandth of a core: 4 ms of looking are followed by 4 s without; and at least a second in any case."""
    every_one = runner._Lints()
    costs = iter([0, 1_000_000, 0, 3_000_000, 0, 10_000])

    class Spent:
        ns = 0

    def thread_time_ns():
        Spent.ns += next(costs)
        return Spent.ns

    class Run:
        counters = type("Counters", (), {"tick_ns": 0, "state": 0})

        def loop(self):
            return None

    monkeypatch.setattr(runner, "_runs", lambda: {1: Run()})
    monkeypatch.setattr(every_one, "_all", lambda now: iter([None]))
    monkeypatch.setattr(runner.time, "thread_time_ns", thread_time_ns)
    try:
        assert every_one.look(10**12) == 10**12 + runner.SLICE_PAUSE_NS
        assert every_one.look(10**12 + 10**7) == 10**12 + 10**7 + 10**9  # long steps are looked for meanwhile
        assert every_one.next_ns == 10**12 + 10**7 + 4_000_000_000
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("settings", [{"lints": False}, {"watchdog": False}], ids=["no lints", "no watchdog"])
def test_they_are_off_when_not_wanted(quick, told, settings):
    """A lost task, a long step: nothing is looked at, nothing told."""

    async def main():
        task = asyncio.create_task(lost())
        await asyncio.sleep(0.3)
        time.sleep(0.3)
        task.cancel()

    obsloop.run(
        main(), settings=obsloop.Settings(name="off", never_woken_after=0.01, never_yields_after=0.01, **settings)
    )
    assert told.lints == []
    assert runner._lints.next_ns == 0


def test_in_a_world_with_a_tests_clock_nothing_is_looked_at(quick, told):
    """Time there is not time."""
    with StepClock() as clock:
        loop = obsloop.Loop(clock.selector(), settings=obsloop.Settings(never_woken_after=0.01))
        task = loop.create_task(lost())
        loop.call_later(3600, loop.stop)
        loop.call_later(1, time.sleep, 0.1)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
    assert told.lints == []


def test_what_raises_is_ours_and_the_program_goes_on(quick, monkeypatch, caplog, told):
    """An error of ours in a look is logged once, and the next look is a new one; an instrument that raises is out."""

    class Bad:
        def on_task_lint(self, event):
            raise RuntimeError("bad instrument")

    errors = iter([RuntimeError("ours")])
    real = never_woken.NeverWoken.begin

    def begin(self, now):
        for error in errors:
            raise error
        real(self, now)

    monkeypatch.setattr(never_woken.NeverWoken, "begin", begin)

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_instrument(Bad())
        task = asyncio.create_task(lost())
        event = await asyncio.to_thread(told.wait_for, obsloop.events.TaskLint, 30)
        task.cancel()
        return event

    event = obsloop.run(main(), settings=obsloop.Settings(name="bad", never_woken_after=0.1))
    assert event.lint == "never_woken"
    assert any("on_task_lint" in r.getMessage() for r in caplog.records)
    assert any("_look_at_tasks" in r.getMessage() for r in caplog.records)


def test_tasks_of_the_programs_own_make_are_asked_nothing(looked_at, told):
    """One whose methods raise outside of its own thread; one that is no task of asyncio's at all."""

    class Own(asyncio.Task):
        def __hash__(self):
            return 7

        def get_coro(self):
            raise RuntimeError("not for you")

        def get_name(self):
            raise RuntimeError("not for you")

    async def main(looking):
        loop = asyncio.get_running_loop()
        task = Own(lost(), loop=loop, name="own")
        await asyncio.sleep(0)
        for _ in range(6):
            await looking.look(10.0)
        task.cancel()
        await asyncio.wait([task])

    looked_at(main)
    assert [event.task_name for event in told.lints] == ["own"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_after_fork_has_found_nothing_yet():
    """What was told, kept and dropped is the parent's."""
    assert (
        output("""
        import asyncio, os, warnings
        import obsloop
        from obsloop.metrics.self_metrics import dropped
        from obsloop.tasks.lints import runner as lints
        from obsloop.tasks.lints.runner import findings
        warnings.simplefilter("ignore")
        async def main():
            loop = asyncio.get_running_loop()
            findings.tell(loop._obsloop, "growing", lints.scan.Site("f", "", 0), "grows", log=False)
            dropped["task_lint"] = dropped["task_creation"] = 3
            print(len(lints.kept().events), dropped["task_lint"], dropped["task_creation"], flush=True)
            if os.fork() == 0:
                print(lints.kept(), dropped["task_lint"], dropped["task_creation"], flush=True)
                os._exit(0)
            os.wait()
        obsloop.run(main())
        """)
        == "1 3 3\nRecent(events=[], older=0) 0 0\n"
    )


def test_they_are_shown_with_the_tasks():
    """/tasks has them, for programs and for people; what a program calls its things is made harmless."""
    shown = output("""
        import asyncio, json, urllib.request
        import obsloop
        from obsloop import service
        from obsloop.tasks.lints import runner as lints
        from obsloop.tasks.lints.runner import findings
        url = service.ensure("127.0.0.1:0", unhealthy_after=60.0)
        def get(accept):
            request = urllib.request.Request(url + "/tasks", headers={"Accept": accept})
            return urllib.request.urlopen(request, timeout=60).read().decode()
        async def main():
            loop = asyncio.get_running_loop()
            assert "What is wrong" not in await asyncio.to_thread(get, "text/html")
            site = lints.scan.Site("app.<b>worker</b>", "/app.py", 7, "worker 3")
            findings.tell(loop._obsloop, "never_woken", site, "has waited", n=2, seconds=40.0, log=False)
            print(json.dumps(json.loads(await asyncio.to_thread(get, "application/json"))["lints"]))
            page = await asyncio.to_thread(get, "text/html")
            while "What is wrong" not in page:  # a page that took long to make is kept for up to a second
                await asyncio.sleep(0.1)
                page = await asyncio.to_thread(get, "text/html")
            print("What is wrong with tasks" in page, "app.&lt;b&gt;worker&lt;/b&gt; (worker 3)" in page)
        obsloop.run(main())
    """)
    first, second = shown.splitlines()
    (finding,) = json.loads(first)
    assert finding.pop("first_seen") < finding.pop("last_seen")
    assert finding == {
        "lint": "never_woken", "loop": "main", "name": "app.<b>worker</b>", "file": "/app.py:7", "task": "worker 3",
        "message": "has waited", "count": 2, "detail": "",
    }  # fmt: skip
    assert second == "True True"


def test_a_look_that_waits_for_its_next_slice_holds_no_loop(looked_at):
    """Who closes a loop and lets go of it meanwhile finds it gone."""

    async def main(looking):
        going_on = looking.all._all(runner.TaskScan(0, runner._runs()))
        await asyncio.to_thread(next, going_on)  # as the watchdog does it, in a thread of its own
        return [v for v in going_on.gi_frame.f_locals.values() if isinstance(v, asyncio.AbstractEventLoop)]

    assert looked_at(main) == []
