"""The recorder keeps what instruments are given, for a test to look at."""

import asyncio
import threading
import time

import pytest

import obsloop
from obsloop import instruments, testing
from obsloop.events import CallbackError, LoopBlocked, LoopUnblocked, SlowCallback, SlowIteration
from obsloop.testing import Recorder

pytestmark = pytest.mark.usefixtures("nothing_to_tell")

HOOKS = {
    "on_slow_callback": SlowCallback,
    "on_slow_iteration": SlowIteration,
    "on_loop_blocked": LoopBlocked,
    "on_loop_unblocked": LoopUnblocked,
    "on_callback_error": CallbackError,
}


def event(event_type=SlowCallback, name="app.handler", **more):
    """An event of that type, as the loop would make it."""
    if event_type is CallbackError:
        more = {"error_type": "ValueError", "origin": "callback"} | more
    place = {"loop_name": "main", "kind": "task_step", "filename": "app.py", "lineno": 12}
    times = {"duration": 0.302, "schedule_delay": 0.0, "started_at": 0.0}
    return event_type(name=name, **place, **times, **more)


def tell(hook, happened):
    """What a loop does when something has happened."""
    instruments.process.emit(hook, happened)


def test_it_listens_to_every_loop_while_it_is_entered():
    """And to none before and after."""
    recorder = Recorder()
    tell("on_slow_callback", event())
    with recorder as events:
        assert events is recorder
        tell("on_slow_callback", event(name="heard"))
    tell("on_slow_callback", event())
    assert [heard.name for heard in recorder.events] == ["heard"]


def test_events_are_in_order_and_by_type():
    """Each type has a list of its own."""
    told = [event(event_type) for event_type in (*HOOKS.values(), *HOOKS.values())]
    with Recorder() as events:
        for hook, happened in zip([*HOOKS, *HOOKS], told, strict=True):
            tell(hook, happened)
    assert events.events == told
    lists = [events.slow_callbacks, events.slow_iterations, events.blocked, events.unblocked, events.errors]
    assert lists == [[told[n], told[n + 5]] for n in range(5)]
    events.clear()
    assert events.events == events.errors == []


def test_the_events_of_every_hook_arrive():
    """Also of one that is added to the list of hooks one day."""
    recorder = Recorder()
    for number, hook in enumerate(instruments.HOOKS):
        getattr(recorder, hook)(number)
    assert recorder.events == list(range(len(instruments.HOOKS)))


def test_an_error_on_a_real_loop_is_kept():
    """By a recorder of the process, and by one of that loop."""
    own = Recorder()

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_instrument(own)
        loop.set_exception_handler(lambda loop, context: None)
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with Recorder() as events:
        obsloop.run(main())
    assert [error.error_type.rpartition(".")[2] for error in events.errors] == ["ZeroDivisionError"]
    assert own.errors == events.errors


def test_what_comes_from_another_thread_can_be_waited_for():
    """The first event of that type is returned, at once where it is there already."""
    with Recorder() as events:
        events.on_loop_blocked(event(LoopBlocked))
        late = threading.Timer(0.05, tell, ("on_loop_unblocked", event(LoopUnblocked, name="late")))
        late.start()
        assert events.wait_for(LoopUnblocked).name == "late"
        assert events.wait_for(LoopUnblocked, timeout=0) is events.unblocked[0]
        late.join()


def test_waiting_in_vain_says_what_came_instead():
    """After the time given, as an error."""
    events = Recorder()
    events.on_slow_callback(event())
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^no LoopBlocked within 0\.1 s; what arrived: <Recorder: 1 SlowCallback: "):
        events.wait_for(LoopBlocked, timeout=0.1)
    assert time.monotonic() - began >= 0.1


def test_a_loop_is_not_to_wait_for_itself():
    """The error says how to wait instead."""
    events = Recorder()

    async def main():
        with pytest.raises(RuntimeError, match=r"Use `await asyncio\.to_thread\(recorder\.wait_for, LoopBlocked\)`"):
            events.wait_for(LoopBlocked)
        asyncio.get_running_loop().call_later(0.01, events.on_loop_blocked, event(LoopBlocked))
        return await asyncio.to_thread(events.wait_for, LoopBlocked)

    assert asyncio.run(main()) is events.blocked[0]


def test_it_is_bounded_and_counts_what_it_drops(monkeypatch):
    """The first 10,000 are kept."""
    assert testing._MOST == 10_000
    monkeypatch.setattr(testing, "_MOST", 3)
    events = Recorder()
    for number in range(5):
        events.on_slow_callback(event(name=str(number)))
    assert [kept.name for kept in events.events] == ["0", "1", "2"]
    assert events.dropped == 2
    assert "2 dropped" in repr(events)
    events.clear()
    assert events.dropped == 0


def test_nothing_is_lost_between_threads():
    """Four of them tell at once."""

    def many():
        for _ in range(500):
            tell("on_slow_callback", event())

    with Recorder() as events:
        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(events.events) == 2000


def test_its_repr_tells_a_failed_assertion():
    """How many of what, and the first of them in a few words."""
    events = Recorder()
    assert repr(events) == "<Recorder: no events>"
    events.on_slow_callback(event())
    events.on_callback_error(event(CallbackError, name=""))
    assert (
        repr(events) == "<Recorder: 1 SlowCallback, 1 CallbackError:"
        " SlowCallback app.handler (app.py:12) 0.302 s; CallbackError (app.py:12) 0.302 s>"
    )
    for _ in range(8):
        events.on_loop_blocked(event(LoopBlocked))
    assert repr(events).endswith("; ...>")


def test_it_may_be_removed_by_hand():
    """The end of the block has nothing left to do."""
    with Recorder() as events:
        obsloop.remove_instrument(events)
        tell("on_slow_callback", event())
    assert events.events == []
