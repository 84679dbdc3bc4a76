"""The program's garbage is collected in the program's threads, also while obsloop looks at its tasks."""

import asyncio
import gc
import os
import threading
import time
import weakref

import pytest

import obsloop
from obsloop.base import gc_pause
from obsloop.blocking import watchdog
from obsloop.service.messages import Request
from obsloop.service.tasks import _kept, tasks as page_of_tasks
from obsloop.tasks import census
from obsloop.tasks.lints import runner
from tests.support import LIMIT
from tests.tasks.test_census import innermost, outermost, running

take_census = census.take_census


@pytest.fixture(autouse=True)
def only_the_test_looks(monkeypatch):
    """The watchdog, and a service that a test before has started, hold off the collector at moments of their own."""
    monkeypatch.setattr(watchdog, "_look_at_tasks", rests)
    monkeypatch.setattr(census, "take_census", lambda: census.CENSUS_SECONDS)
    end = time.monotonic() + LIMIT
    while gc_pause._holders or (watchdog._life is not None and watchdog._life.busy_ns):
        assert time.monotonic() < end, "a look does not end"
        time.sleep(0.001)


def rests(life):
    life.lints_ns = life.looked_ns + watchdog.REST_NS


@pytest.fixture
def thresholds(only_the_test_looks):
    """The collector's, put back."""
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


@pytest.fixture(autouse=True)
def no_census_yet():
    census.forked()
    yield
    census.forked()


class Cycle:
    """Garbage, when nothing else refers to it."""

    def __init__(self):
        self.itself = self


def all_lints():
    """One look, all slices of it."""
    runner._lints.next_ns = 0
    runner.go_on()
    while runner._lints.going_on is not None:
        runner._lints.next_ns = 0
        runner.go_on()


def ask():
    _kept.clear()  # else the answer to a question just before serves for this one, too
    assert page_of_tasks(Request("GET", "/tasks", "", {})).status == 200


@pytest.mark.parametrize("look", [take_census, ask, all_lints])
def test_no_look_collects_the_programs_garbage(look, thresholds, monkeypatch):
    """Two thousand tasks, and a collector that starts after 500 allocations: while the look holds it off nothing is
    finalised in the thread that looks, and afterwards the collector is as it was."""
    died_in, when_held, died_meanwhile, looks_in, garbage = [], [], [], [], []
    hold, let_go = gc_pause.hold, gc_pause.let_go

    def holding():  # the garbage comes now: before, another thread may allocate enough for a collection in this one
        hold()
        if threading.get_ident() in looks_in and not garbage:
            garbage.append(True)
            for _ in range(10):
                weakref.finalize(Cycle(), lambda: died_in.append(threading.get_ident()))
        if threading.get_ident() in looks_in:  # the watchdog looks, too
            when_held.append(died_in.count(threading.get_ident()))

    def noting():  # and allocating nothing: a collection may be due
        if threading.get_ident() in looks_in and when_held:
            died_meanwhile.append(died_in.count(threading.get_ident()) - when_held[0])
            when_held.clear()  # a look that takes long lets go of the collector now and then
        let_go()

    monkeypatch.setattr(gc_pause, "hold", holding)
    monkeypatch.setattr(gc_pause, "let_go", noting)
    with running() as call:
        call(lambda: setattr(call, "many", [asyncio.create_task(outermost()) for _ in range(2000)]))
        call(int)

        def looking():
            looks_in.append(threading.get_ident())
            gc.disable()
            gc.collect()
            gc.set_threshold(500, 10, 10)
            gc.enable()
            look()
            gc.disable()

        thread = threading.Thread(target=looking)
        thread.start()
        thread.join()
        gc.enable()
        assert set(died_meanwhile) == {0}
        assert gc.get_threshold()[:2] == (500, 10)
        gc.collect()
        assert len(died_in) == 10


def test_the_collector_is_off_for_a_millisecond_at_a_time(thresholds, monkeypatch):
    """While a long look breathes, the collector is on, so that the program's own garbage goes."""
    seen, clock = [], [0]
    monkeypatch.setattr(gc_pause, "monotonic_ns", lambda: clock[0])
    monkeypatch.setattr(gc_pause, "sleep", lambda seconds: seen.append(gc.get_threshold()))
    with gc_pause.held:
        for _ in gc_pause.breathing(range(100)):
            assert gc.get_threshold()[0] == 0
            clock[0] += 100_000
    assert seen == [thresholds] * 10
    assert gc.get_threshold() == thresholds


def test_a_hold_within_a_hold_ends_with_the_outer_one(thresholds):
    """A page is held as a whole, and asks for a listing that is held, too: between the two nothing is collected."""
    with gc_pause.held:
        with gc_pause.held:
            pass
        assert gc.get_threshold()[0] == 0
        gc_pause.breathe()
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold() == thresholds


def test_the_program_sees_and_changes_the_collector_as_ever(thresholds):
    """``isenabled`` says what the program has said, ``disable`` lasts, and a threshold that it sets stays."""
    with gc_pause.held:
        assert gc.isenabled()
        gc.disable()
    assert not gc.isenabled()
    with gc_pause.held:
        gc.enable()
    assert gc.isenabled()
    with gc_pause.held:
        gc.set_threshold(5000, 20, 20)
    assert gc.get_threshold()[:2] == (5000, 20)
    gc.set_threshold(0)
    with gc_pause.held:
        pass
    assert gc.get_threshold()[0] == 0


def test_a_hook_of_a_lint_runs_with_the_collector_on(thresholds):
    """It is the program's code, and may take long."""
    from obsloop.introspect.functions import Site
    from obsloop.tasks.lints import findings

    seen = []

    class Hears:
        def on_task_lint(self, event):
            seen.append(gc.get_threshold())

    loop = obsloop.new_event_loop()
    try:
        loop.add_instrument(Hears())
        with gc_pause.held:
            findings.tell(loop._obsloop, "growing", Site("f", "", 0), "is only a test", log=False)
    finally:
        loop.close()
    assert seen == [thresholds]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_fork_at_that_moment_collects(thresholds):
    """The thread that would put the threshold back is not in the child."""
    held, over = threading.Event(), threading.Event()

    def hold():
        with gc_pause.held:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if gc.get_threshold() == thresholds else 1)
    status = os.waitpid(pid, 0)[1]
    over.set()
    thread.join()
    assert status == 0
    assert gc.get_threshold() == thresholds


def test_what_is_walked_is_bounded_and_the_rest_is_counted(monkeypatch):
    """Of tasks that no census has seen only so many are looked at; the answer says how many were not."""
    monkeypatch.setattr(census, "MAX_WALKED", 1024)
    with running() as call:
        call(lambda: setattr(call, "old", [asyncio.create_task(innermost(), name=f"old {i}") for i in range(600)]))
        census.begin()
        take_census()
        call(lambda: setattr(call, "new", [asyncio.create_task(innermost()) for _ in range(5000)]))
        found = census.listing()
        assert [task.name for task in found.tasks[:600]] == [f"old {i}" for i in range(600)]
        assert len(found.tasks) == 1000
        # Tasks of other tests that are done may still be there, and are counted where nothing looks at them.
        assert len(found.tasks) + found.not_shown >= 5600
        assert found.unseen >= 5000
        assert found.not_looked_at >= 5000 - 1024 - 2 * census._CHUNK
        assert found.unseen - found.not_looked_at <= 1024 + census._CHUNK


def test_no_abandoned_coroutine_ends_in_a_thread_that_looks():
    """A busy program with cycles of garbage, and its tasks asked for all the time: no ``finally`` runs within a look.

    Between two looks a thread of obsloop's is like any other, and may be the one that collects.
    """
    within_a_look = []

    async def abandoned(me):
        try:
            me.append(asyncio.get_running_loop().create_future())
            await me[1]
        finally:
            within_a_look.append(threading.get_ident() in gc_pause._holders)

    def leave():
        me = []
        coro = abandoned(me)
        me.append(coro)
        coro.send(None)

    async def main():
        over = threading.Event()
        looks = []

        def looking():
            while not over.is_set():
                take_census()
                ask()
                all_lints()
                looks.append(1)

        lasting = [asyncio.create_task(innermost()) for _ in range(1000)]
        thread = threading.Thread(target=looking, daemon=True)
        thread.start()
        end = time.monotonic() + LIMIT
        while (len(within_a_look) < 2000 or len(looks) < 3) and time.monotonic() < end:
            for _ in range(20):
                leave()
            await asyncio.sleep(0)
        over.set()
        await asyncio.to_thread(thread.join)
        for task in lasting:
            task.cancel()
        await asyncio.gather(*lasting, return_exceptions=True)
        return len(looks)

    assert obsloop.run(main()) >= 3
    assert len(within_a_look) >= 2000
    assert not any(within_a_look)
