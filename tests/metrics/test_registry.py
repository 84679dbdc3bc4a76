"""One entry for each loop name: loops add up under their name, names are bounded, and closed loops are freed."""

import asyncio
import dataclasses
import gc
import threading
import time
import weakref

import pytest

import obsloop
from obsloop.metrics import registry
from tests.support import DURATION, blocks_of, counts, ran_ns, run_briefly, states_ns


def in_thread(name: str, target, *args: object) -> None:
    """Run it in a thread of that name, to the end."""
    thread = threading.Thread(target=target, args=args, name=name)
    thread.start()
    thread.join()


def work(n: int, settings: obsloop.Settings | None = None) -> None:
    """A loop that runs n callbacks."""
    loop = obsloop.Loop(settings=settings)
    for _ in range(n):
        loop.call_soon(str)
    run_briefly(loop)
    loop.close()


def test_two_loops_in_two_threads_do_not_mix(clean_metrics):
    """Each thread's loop has the name of its thread, and its own figures, while both run at once."""
    barrier = threading.Barrier(2, timeout=30)

    def run(n: int) -> None:
        async def main() -> None:
            barrier.wait()
            for _ in range(n):
                asyncio.get_running_loop().call_soon(str)
            await asyncio.sleep(0)
            barrier.wait()

        obsloop.run(main())

    threads = [threading.Thread(target=run, args=(n,), name=name) for name, n in (("one", 300), ("two", 700))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = obsloop.snapshots()
    assert set(figures) == {"one", "two"}
    more = counts(figures["two"])["callback"] - counts(figures["one"])["callback"]
    assert more == 400
    assert 300 <= counts(figures["one"])["callback"] < 350


def test_a_thousand_runs_make_one_set_of_series_and_lose_nothing(clean_metrics):
    """Each run has its own loop; all of them add up under one name, to the last callback."""

    async def main() -> None:
        await asyncio.sleep(0)

    obsloop.run(main())
    one = counts(obsloop.snapshots()["main"])
    for _ in range(999):
        obsloop.run(main())
    assert set(obsloop.snapshots()) == {"main"}
    assert counts(obsloop.snapshots()["main"]) == {kind: n * 1000 for kind, n in one.items()}


def test_loops_of_one_name_at_once_add_up(clean_metrics):
    """Four loops open at the same time, then closed: their figures are a sum throughout."""
    loops = [obsloop.Loop() for _ in range(4)]
    for loop in loops:
        loop.call_soon(str)
        run_briefly(loop)
    assert counts(obsloop.snapshots()["main"]) == {"callback": 4}
    for loop in loops:
        loop.close()
        assert counts(loop.snapshot()) == {"callback": 4}
    work(1)
    assert counts(obsloop.snapshots()["main"]) == {"callback": 5}


def test_past_eight_names_all_go_to_other_and_are_counted(clean_metrics):
    """The ninth and tenth name share `_OTHER`; the loops counted there are told in obsloop.dropped."""
    for i in range(10):
        work(i + 1, obsloop.Settings(name=f"loop-{i}"))
    work(100, obsloop.Settings(name="loop-3"))
    figures = obsloop.snapshots()
    assert set(figures) == {*(f"loop-{i}" for i in range(8)), "_OTHER"}
    assert counts(figures["_OTHER"]) == {"callback": 9 + 10}
    assert counts(figures["loop-3"]) == {"callback": 104}
    assert figures["_OTHER"].loop_name == "_OTHER"
    assert obsloop.process_snapshot().value("obsloop.dropped", "asyncio.eventloop.name") == 2


def test_the_main_threads_loop_has_its_name_whatever_came_before(clean_metrics):
    """Eight other names first, and then some that share `_OTHER`."""
    for i in range(9):
        work(1, obsloop.Settings(name=f"loop-{i}"))
    work(1)
    assert {"main", "_OTHER"} < set(obsloop.snapshots())


def test_a_name_whose_loops_are_gone_for_a_while_gives_its_place_back(clean_metrics, monkeypatch):
    """The one that ended first; not those with live loops, and not those whose last numbers no scrape may have seen."""
    alive = obsloop.Loop(settings=obsloop.Settings(name="loop-0"))
    alive.call_soon(str)
    run_briefly(alive)
    for i in range(1, 8):
        work(1, obsloop.Settings(name=f"loop-{i}"))
    work(1, obsloop.Settings(name="too soon"))
    assert "too soon" not in obsloop.snapshots()
    now = registry.clock.seconds()
    monkeypatch.setattr(registry.clock, "seconds", lambda: now + registry.REST_SECONDS + 1)
    work(1, obsloop.Settings(name="new"))
    work(1, obsloop.Settings(name="newer"))
    assert set(obsloop.snapshots()) == {"loop-0", *(f"loop-{i}" for i in range(3, 8)), "new", "newer", "_OTHER"}
    work(1, obsloop.Settings(name="loop-1"))  # comes again, and begins anew
    assert counts(obsloop.snapshots()["loop-1"]) == {"callback": 1}
    alive.close()


def test_threads_of_one_kind_share_a_name(clean_metrics):
    """Python numbers them; each new number would be a new name."""
    for i in range(20):
        in_thread(f"Thread-{i} (serve)", work, 1)
        in_thread(f"ThreadPoolExecutor-{i}_0", work, 1)
        in_thread(f"jobs_{i}", work, 1)
        in_thread(f"Thread-{i}", work, 1)
    assert set(obsloop.snapshots()) == {"Thread (serve)", "ThreadPoolExecutor", "jobs", "Thread"}
    assert counts(obsloop.snapshots()["jobs"]) == {"callback": 20}


def test_the_name_is_the_settings_or_the_threads(clean_metrics):
    """`main` in the main thread, else the thread's name, unless the settings say another."""
    work(1)
    in_thread("worker", work, 1)
    in_thread("worker-2", work, 1, obsloop.Settings(name="chosen"))
    assert set(obsloop.snapshots()) == {"main", "worker", "chosen"}


def test_the_thread_that_runs_the_loop_names_it(clean_metrics):
    """A loop made in the main thread and run in another has the other's name."""
    loop = obsloop.Loop()
    in_thread("runner", run_briefly, loop)
    loop.close()
    assert set(obsloop.snapshots()) == {"runner"}


def test_a_loop_that_never_ran_has_no_series(clean_metrics):
    """Made and closed: nothing to tell."""
    obsloop.Loop().close()
    assert obsloop.snapshots() == {}


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "unclosed"])
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_is_dropped_is_freed(clean_metrics, closed):
    """Nothing of ours keeps a loop alive; its figures stay."""
    loop = obsloop.Loop()
    loop.call_soon(str)
    loop.call_later(0, str)
    run_briefly(loop)
    if closed:
        loop.close()
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None
    assert counts(obsloop.snapshots()["main"]) == {"callback": 1, "timer": 1}
    work(1)
    assert counts(obsloop.snapshots()["main"]) == {"callback": 2, "timer": 1}


def test_a_closed_loop_is_freed_without_the_collector(clean_metrics):
    """No cycle of ours: the last reference frees it."""
    gc.collect()
    gc.disable()
    try:
        loop = obsloop.Loop()
        loop.call_soon(str)
        run_briefly(loop)
        loop.close()
        ref = weakref.ref(loop)
        del loop
        stock = asyncio.SelectorEventLoop()
        stock.close()
        stock_ref = weakref.ref(stock)
        del stock
        assert (ref() is None) == (stock_ref() is None)
    finally:
        gc.enable()


def test_the_cost_of_many_loops_is_bounded(clean_metrics):
    """The blocks of closed loops are used again: a thousand loops leave no more than the most that lived at once."""
    for _ in range(250):
        work(1)
    assert blocks_of("main") == 1
    loops = [obsloop.Loop() for _ in range(3)]
    for loop in loops:
        run_briefly(loop)
    for loop in loops:
        loop.close()
    assert blocks_of("main") == 3
    assert counts(obsloop.snapshots()["main"]) == {"callback": 250}


def test_a_snapshot_does_not_change(stepped):
    """It is the moment's figures: nothing in it can be set, and the loop's going on changes nothing."""
    clock, loop = stepped
    loop.call_soon(clock.advance, 1)
    run_briefly(loop)
    snapshot = loop.snapshot()
    before = (states_ns(snapshot), counts(snapshot), snapshot.histogram(DURATION, "callback").bucket_counts)
    loop.call_soon(clock.advance, 5)
    run_briefly(loop)
    assert before == (states_ns(snapshot), counts(snapshot), snapshot.histogram(DURATION, "callback").bucket_counts)
    assert ran_ns(loop.snapshot()) == 6_000_000_000
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.running = True
    with pytest.raises(TypeError):
        snapshot.data["asyncio.eventloop.time"] = {}
    with pytest.raises(TypeError):
        snapshot["asyncio.eventloop.time"]["idle",] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.histogram(DURATION, "callback").sum = 0


def test_asking_a_snapshot_wrongly_is_told(stepped):
    """An unknown signal, a histogram asked for as a number, a number asked for as a histogram."""
    snapshot = stepped[1].snapshot()
    with pytest.raises(KeyError, match=r"no metric 'nonsense' here; there are asyncio\.connect\.duration, "):
        snapshot["nonsense"]
    with pytest.raises(TypeError, match=r"is a histogram: use histogram\(\)"):
        snapshot.value(DURATION, "callback")
    with pytest.raises(TypeError, match=r"is no histogram: use value\(\)"):
        snapshot.histogram("asyncio.eventloop.time", "idle")


def test_a_snapshot_says_since_when_it_counts(clean_metrics):
    """The first loop of a name begins it; what is run later, and asked later, leaves it. (A fork: test_fork.py.)"""
    before = time.time()
    work(1)
    first, loaded = obsloop.snapshots(), obsloop.process_snapshot().began
    (began,) = [snapshot.began for snapshot in first.values()]
    assert loaded < before <= began <= time.time()
    work(1)
    assert [snapshot.began for snapshot in obsloop.snapshots().values()] == [began]


def test_an_exporter_of_spans_counts_what_it_did_not_make():
    """One, or several at once."""
    before = obsloop.process_snapshot().value("obsloop.dropped", "span")
    obsloop.count_dropped_spans()
    obsloop.count_dropped_spans(4)
    assert obsloop.process_snapshot().value("obsloop.dropped", "span") == before + 5


def test_an_exporter_counts_what_it_costs_and_loses():
    """From several threads at once nothing is lost."""

    def total() -> tuple[int, float]:
        process = obsloop.process_snapshot()
        return process.value("obsloop.dropped", "export"), process.value("obsloop.self.time", "export")

    failed, spent = total()

    def count() -> None:
        for _ in range(500):
            obsloop.count_export(0.001)
            obsloop.count_export(0.001, failed=True)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total() == (failed + 2000, pytest.approx(spent + 4.0))
