"""The decision why a loop was blocked, from measured numbers alone: what goes in is known, and nothing has to run."""

from itertools import product

import pytest

from obsloop.blocking import cause, usage
from obsloop.blocking.cause import Measured, decide
from obsloop.blocking.usage import LateWakeup
from obsloop.events import CAUSES

MS = 1_000_000
ALL = 300 * MS
START = 10_000 * MS


def measured(**given) -> Measured:
    """A block of 300 ms against a limit of 100 ms, in which the thread waited for all of it in one call."""
    known = {
        "started_ns": START, "ended_ns": START + ALL, "threshold_ns": 100 * MS, "gc_ns": 0, "cpu_ns": 0, "wait_ns": 0,
        "slices": 1, "over": True, "switch_ns": 5 * MS, "late": (), "sighted": True,
    }  # fmt: skip
    return Measured(**(known | given))


def late(from_ms: int, to_ms: int, *, slices: int, wait_ms: int = 0) -> tuple[LateWakeup, ...]:
    """The watchdog was to wake `from_ms` into the block, and did `to_ms` into it."""
    return (LateWakeup(START + from_ms * MS, START + to_ms * MS, wait_ms * MS, slices),)


def test_a_thread_that_ran_all_the_time_computed():
    """300 ms of CPU time in a block of 300 ms."""
    assert decide(measured(cpu_ns=ALL)) == "cpu"


def test_a_thread_that_neither_ran_nor_could_was_in_a_system_call():
    """It slept, and was put on a CPU again once, at the end; the watchdog woke on time."""
    assert decide(measured()) == "syscall"


def test_collecting_is_not_computing():
    """A collection uses the thread's CPU time: it is told from the program's own by its hook."""
    assert decide(measured(cpu_ns=ALL, gc_ns=200 * MS)) == "gc"
    assert decide(measured(cpu_ns=ALL, gc_ns=100 * MS)) == "cpu"


def test_a_thread_that_could_run_and_did_not_was_off_cpu():
    """Most of the time it stood on the run queue."""
    assert decide(measured(cpu_ns=100 * MS, wait_ns=200 * MS)) == "off_cpu"


def test_a_callback_that_a_free_machine_would_have_run_in_time_is_not_to_blame():
    """90 ms of its own doing, of any kind, and the rest the machine's: without that it would not have been slow."""
    for own in ({"cpu_ns": 90 * MS}, {"cpu_ns": 90 * MS, "gc_ns": 90 * MS}, {}):
        assert decide(measured(ended_ns=START + 160 * MS, wait_ns=70 * MS, **own)) == "off_cpu"


def test_a_little_time_on_the_run_queue_is_no_excuse():
    """100.3 ms against a limit of 100 ms, 0.4 of them on the run queue, is what every sleep of 0.1 s looks like."""
    assert decide(measured(ended_ns=START + 100_300_000, wait_ns=400_000)) == "syscall"


def test_waiting_for_the_gil_is_waking_up_every_few_milliseconds():
    """The watchdog waited for it as well."""
    assert decide(measured(slices=60, late=late(100, 300, slices=40))) == "gil"


def test_many_short_calls_are_no_waiting_for_the_gil():
    """Sixty calls of 5 ms wake the thread as often as the GIL's timed wait; the watchdog had the GIL at once."""
    assert decide(measured(slices=60)) == "syscall"


def test_many_short_calls_on_a_busy_machine_are_not_the_gil():
    """The watchdog was late by 7 ms, and was woken twice: for the GIL, or by others that wanted its CPU as well."""
    twice = late(240, 247, slices=2)
    assert decide(measured(slices=60, wait_ns=75 * MS, late=twice)) == "unknown"
    assert decide(measured(slices=60, late=twice)) == "gil"
    assert decide(measured(slices=60, wait_ns=75 * MS, late=late(100, 300, slices=40))) == "gil"
    slightly_late = late(202, 204, slices=1) + late(304, 307, slices=2)  # and on the run queue for longer than that
    assert decide(measured(ended_ns=START + 345 * MS, slices=64, wait_ns=26 * MS, late=slightly_late)) == "unknown"
    assert decide(measured(ended_ns=START + 345 * MS, slices=64, wait_ns=1 * MS, late=slightly_late)) == "gil"


def test_who_holds_the_gil_while_it_waits_is_in_a_system_call():
    """The watchdog waited for the GIL; the loop's thread was not woken once to try for it: it had it."""
    assert decide(measured(slices=1, late=late(100, 300, slices=41))) == "syscall"


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
@pytest.mark.parametrize("own_ms", [0, 50])
def test_a_stopped_process_stood_still(slices, own_ms):
    """After SIGSTOP the watchdog is late, was not on the run queue, and was not waking up for the GIL either."""
    m = measured(cpu_ns=own_ms * MS, late=late(100, 300 - own_ms // 2, slices=slices))
    assert decide(m) == "off_cpu"
    assert decide(m._replace(slices=40)) == "off_cpu"  # preempted often before it was stopped


def test_a_watchdog_that_was_woken_in_its_sleep_was_stopped():
    """It was not due before the block's end, and yet it was put on a CPU: with the whole process, to be stopped.

    And once more to go on. One slice alone may be from falling asleep, where another program got the CPU just before.
    """
    m = measured(ended_ns=START + 110 * MS, late=late(150, 110, slices=2))
    assert decide(m) == "off_cpu"
    assert decide(m._replace(late=late(150, 110, slices=1))) == "unknown"


def test_a_watchdog_that_has_no_cpu_yet_was_not_stopped():
    """It is late by 70 ms and had no slice: it waits for a CPU now, which the kernel counts only when it is over."""
    assert decide(measured(late=late(230, 300, slices=0))) == "unknown"


def test_too_short_to_know():
    """The watchdog was due 5 ms before the end and did not wake: a short stop, or another thread with the GIL?"""
    assert decide(measured(ended_ns=START + 110 * MS, late=late(105, 110, slices=1))) == "unknown"
    # A thread is put on a CPU to be stopped. Without one slice it was not stopped: it waits for a CPU.
    assert decide(measured(ended_ns=START + 110 * MS, late=late(105, 110, slices=0))) == "syscall"
    # Where it woke well before the end, or it lasts still, it is no question.
    assert decide(measured(late=late(100, 105, slices=3))) == "syscall"
    assert decide(measured(ended_ns=START + 105 * MS, over=False, late=late(100, 105, slices=3))) == "syscall"


def test_a_busy_watchdog_is_not_a_busy_loop():
    """The watchdog was on the run queue for most of the block; the loop's own thread slept, and came back at once.

    While it lasts the kernel has not counted a wait that goes on: then the loop's thread may wait as well.
    """
    waited = late(20, 300, slices=3, wait_ms=270)
    assert decide(measured(late=waited)) == "syscall"
    assert decide(measured(late=waited, over=False)) == "unknown"
    # What it waited for before the block says nothing of the block.
    before = late(-270, 10, slices=3, wait_ms=270)
    assert decide(measured(late=before, over=False)) == "syscall"


def test_a_thread_that_never_left_its_cpu_was_off_with_the_whole_machine():
    """No CPU time, not on the run queue, and never switched: the time was stolen from a virtual machine."""
    assert decide(measured(slices=0)) == "off_cpu"
    assert decide(measured(slices=0, over=False)) == "syscall"  # it sleeps, and has not come back yet


def test_without_the_run_queue_the_cpu_clock_still_tells():
    """As on macOS: CPU time, collections and the watchdog's lateness are known."""
    bare = measured(wait_ns=None, slices=None)
    assert decide(bare._replace(cpu_ns=ALL)) == "cpu"
    assert decide(bare._replace(cpu_ns=ALL, gc_ns=ALL)) == "gc"
    assert decide(bare) == "syscall"
    assert decide(bare._replace(late=late(100, 300, slices=0))) == "unknown"  # the GIL, or a machine that stood still


def test_without_any_clock_only_collections_are_known():
    """A system that does not tell CPU time from outside, in the first block of a run."""
    bare = measured(cpu_ns=None, wait_ns=None, slices=None)
    assert decide(bare) == "unknown"
    assert decide(bare._replace(gc_ns=200 * MS)) == "gc"


def test_every_combination_has_an_answer():
    """Whatever is measured, the answer is one of the causes; what the machine took is never called the program's."""
    steps = (0, 1, 100 * MS, ALL, 10 * ALL)
    for gc, cpu, wait in product(steps, (None, *steps), (None, *steps)):
        for slices, lateness, over in product(
            (None, -1, 0, 3, 60, 10_000), ((), late(100, 300, slices=2), late(100, 300, slices=60)), (True, False)
        ):
            m = measured(gc_ns=gc, cpu_ns=cpu, wait_ns=wait, slices=slices, late=lateness, over=over)
            assert decide(m) in CAUSES
            if gc == 0 and cpu == 0 and wait == ALL:
                assert decide(m) == "off_cpu"
    assert decide(measured(ended_ns=START)) in CAUSES  # no time at all


MS = 1_000_000


@pytest.mark.parametrize(
    ("wait", "used", "slept", "expected"),
    [
        (500, 0, 150, 0),  # a sleep beside a competitor with which the loop had shared the CPU before
        (630, 20, 0, 130),  # starved in the block as never before: there is no room for it elsewhere
        (650, 150, 0, 150),  # shared in the block as before
        (0, 50, 100, 0),  # nobody else was there
    ],
)
def test_an_old_figure_of_the_run_queue_is_not_the_blocks(wait, used, slept, expected):
    """Before the block the thread had half a second of CPU and waited for as long; milliseconds."""
    off = 150 if used == 150 else 150 - used
    found = cause._wait_of_block(wait * MS, (500 + used) * MS, 500 * MS * bool(wait), off * MS, used * MS)
    assert abs(found / MS - expected) <= 1
    assert slept == 0 or found == 0


def test_a_sleep_beside_a_competitor_was_not_off_cpu():
    """The kernel's figure is a second old, and of a busy time: the sleep has no part in the waiting of that time."""
    second = 1_000 * MS
    first = usage.SchedStat(at_ns=0, idle_ns=0, cpu_ns=0, wait_ns=0, slices=0, waits=0)
    last = usage.SchedStat(at_ns=second + 150 * MS, idle_ns=0, cpu_ns=500 * MS, wait_ns=502 * MS, slices=260, waits=0)
    before = usage.Usage(second, 0, 0, 0, 0, 500 * MS, first)
    now = usage.Usage(second + 150 * MS, 0, 0, 0, 0, 500 * MS, last)

    class Observed:
        episode = None

    wait_ns, _ = cause._queued(Observed, before, now, 150 * MS, 0, over=True)
    assert wait_ns <= 3 * MS


def test_a_wait_that_began_before_the_first_figure_is_not_the_blocks():
    """The kernel's figure is 5 ms older than the block, and of a thread that stood on the run queue for 20 ms by then.

    It ran, and sleeps in the block: the kernel counted all 25 ms when it got its CPU. Nothing of that is the block's.
    Of a block that is over, the end of the sleep may be what it waited for.
    """
    first = usage.SchedStat(at_ns=0, idle_ns=0, cpu_ns=0, wait_ns=0, slices=0, waits=1)
    last = usage.SchedStat(at_ns=105 * MS, idle_ns=0, cpu_ns=0, wait_ns=25 * MS, slices=1, waits=1)
    before, now = (usage.Usage(queue.at_ns, 0, 0, 0, 0, 0, queue) for queue in (first, last))

    class Observed:
        episode = None

    assert cause._queued(Observed, before, now, 100 * MS, 0, over=False) == (0, 1)
    starved = now._replace(queue=last._replace(wait_ns=90 * MS, slices=2))
    wait_ns, _ = cause._queued(Observed, before, starved, 100 * MS, 0, over=True)
    assert wait_ns == 85 * MS
