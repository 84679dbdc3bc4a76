"""What is remembered of slow callbacks and blocks: the newest hundred, one entry for each block, the rest counted."""

import threading
from collections import deque

import pytest

from obsloop.blocking import recent
from obsloop.events import LoopBlocked, LoopUnblocked, SlowCallback, SlowIteration
from tests.support import output


@pytest.fixture(autouse=True)
def nothing_yet():
    """Each test begins and ends as a new process does."""
    recent.forked()
    yield
    recent.forked()


def make(cls, name="f", started_at=1.0, duration=0.5, loop_name="main"):
    return cls(
        loop_name=loop_name,
        kind="callback",
        name=name,
        filename="app.py",
        lineno=1,
        duration=duration,
        schedule_delay=0.0,
        started_at=started_at,
    )


def names():
    return [event.name for event in recent.kept().events]


def test_the_newest_comes_first():
    """Callbacks, iterations and blocks in one line, in the order in which they were told."""
    events = [make(SlowCallback, "a"), make(SlowIteration, "b"), make(LoopBlocked, "c"), make(SlowCallback, "d")]
    for event in events:
        recent.note(event)
    assert recent.kept()[:2] == (events[::-1], 0)


def test_a_hundred_are_kept_and_the_others_counted():
    """A storm of a thousand leaves its last hundred, and says that there were nine hundred more."""
    for i in range(1000):
        recent.note(make(SlowCallback, str(i)))
    assert names() == [str(i) for i in range(999, 899, -1)]
    assert recent.dropped() == recent.kept().older == 900


def test_a_block_is_one_entry_from_first_sight_to_its_end():
    """While it lasts its LoopBlocked is there; its LoopUnblocked takes that place, and not another block's."""
    recent.note(make(LoopBlocked, "one", 1.0))
    recent.note(make(LoopBlocked, "other loop", 1.0, loop_name="worker"))
    recent.note(make(SlowCallback, "between"))
    ended = make(LoopUnblocked, "one", 1.0, duration=9.0)
    recent.note(ended)
    first, second, third = recent.kept().events
    assert third is ended
    assert (first.name, type(second), second.name) == ("between", LoopBlocked, "other loop")
    assert recent.dropped() == 0


def test_the_same_loop_blocked_again_is_another_entry():
    """Each episode has its own beginning."""
    for started_at in (1.0, 2.0):
        recent.note(make(LoopBlocked, "f", started_at))
        recent.note(make(LoopUnblocked, "f", started_at))
    assert [(type(event), event.started_at) for event in recent.kept().events] == [
        (LoopUnblocked, 2.0),
        (LoopUnblocked, 1.0),
    ]


def test_a_block_that_outlasts_the_list_is_news_when_it_ends():
    """It had fallen off the end; now it is told in full, and the count of the others is right."""
    recent.note(make(LoopBlocked, "long", 1.0))
    for i in range(150):
        recent.note(make(SlowCallback, str(i)))
    assert "long" not in names()
    recent.note(make(LoopUnblocked, "long", 1.0, duration=60.0))
    assert names()[:2] == ["long", "149"]
    assert len(names()) == 100
    assert recent.dropped() == 51  # 151 happenings, of which a hundred are here


def test_an_end_without_a_beginning_is_an_entry():
    """Its beginning was before the fork, or is lost."""
    recent.note(make(LoopUnblocked, "f"))
    assert names() == ["f"]


def test_blocks_that_never_end_do_not_pile_up():
    """Loops that went away while they were blocked: what is remembered to find their ends is bounded."""
    for i in range(10_000):
        recent.note(make(LoopBlocked, "f", float(i)))
    assert len(recent._kept.lasting) <= 100
    recent.note(make(LoopUnblocked, "end", 9_999.0))
    assert names().count("end") == 1
    assert recent.dropped() == 9_900


def test_what_cannot_be_noted_does_no_harm():
    """The loop is more important than its history."""
    recent.note(None)
    recent.note(make(SlowCallback))
    assert len(recent.kept().events) == 2

    class Full(deque):
        def append(self, entry):
            raise MemoryError

    recent._kept.entries = Full()
    recent.note(make(SlowCallback))
    recent.note(make(LoopBlocked))


def test_many_writers_and_readers_at_once():
    """Eight threads note, two read: nothing is lost, nothing is counted twice, nobody raises."""
    over = threading.Event()
    bad = []

    def write(loop_name):
        for i in range(1000):
            recent.note(make(LoopBlocked, "f", float(i), loop_name=loop_name))
            recent.note(make(SlowCallback, loop_name=loop_name))
            recent.note(make(LoopUnblocked, "f", float(i), loop_name=loop_name))

    def read():
        while not over.is_set():
            seen = recent.kept()
            episodes = [(e.loop_name, e.started_at) for e in seen.events if not isinstance(e, SlowCallback)]
            if len(seen.events) > 100 or len(set(episodes)) != len(episodes) or seen.older < 0:
                bad.append(seen)

    writers = [threading.Thread(target=write, args=[str(i)]) for i in range(8)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert bad == []
    # A block that ended after it had fallen off came back, and pushed another one off.
    assert recent.dropped() == 16_000 - 100


def test_a_reader_tries_again_when_a_writer_comes_between():
    """Where copying is no single step, as without a GIL."""

    class Busy(deque):
        tries = 0

        def __iter__(self):
            self.tries += 1
            if self.tries < 3:
                raise RuntimeError("deque mutated during iteration")
            return super().__iter__()

    recent.note(make(SlowCallback))
    recent._kept.entries = Busy(recent._kept.entries)
    recent._kept.entries.tries = 0
    assert names() == ["f"]


def test_a_child_after_fork_remembers_nothing():
    """What its parent went through is the parent's; a new process of the program's begins with a clean list."""
    assert output("""
        import os, sys, time, obsloop
        from obsloop.blocking import recent
        async def main():
            time.sleep(0.3)
        obsloop.run(main())
        assert recent.kept().events
        sys.stdout.flush()
        if os.fork() == 0:
            print(recent.kept(), flush=True)
            os._exit(0)
        os.wait()
        print(len(recent.kept().events) > 0)
    """).splitlines() == ["Recent(events=[], older=0, since=[])", "True"]
