"""The poll: whoever replaces, closes or interrupts it sees what they see on the stock loop.

The compiled core asks epoll by itself where the selector is the standard one, so this is where it could differ.
"""

import os
import resource
import selectors
import signal
import socket
import time
from textwrap import dedent

import pytest

from tests.support import run_briefly

from .support import other_process, run_all


class Counted(selectors.DefaultSelector):
    """A selector of the program's own, which counts its polls."""

    polls = 0

    def select(self, timeout=None):
        self.polls += 1
        return super().select(timeout)


def counting(select, polls: list):
    """A `select` that counts."""

    def counted(timeout=None):
        polls.append(timeout)
        return select(timeout)

    return counted


def test_a_select_put_on_the_selector_object_is_called(make_loop):
    """Before the loop runs: it is called with the time until the next timer."""
    loop = make_loop()
    polls: list = []
    loop._selector.select = counting(loop._selector.select, polls)
    run_briefly(loop)  # a first run may take longer than a short timer: imports, the watchdog's thread
    assert polls == [0]
    loop.call_later(3600, str)
    loop.call_later(0.2, loop.stop)
    loop.run_forever()
    assert any(timeout and 0 < timeout <= 0.2 for timeout in polls)


@pytest.mark.parametrize("what", ["select", "_process_events"])
def test_a_method_replaced_while_the_loop_runs_is_called(make_loop, what):
    """As loop monitors do it, from a coroutine or a callback."""
    loop = make_loop()
    calls: list = []

    def replace() -> None:
        owner = loop._selector if what == "select" else loop
        setattr(owner, what, counting(getattr(owner, what), calls))
        loop.call_later(0.2, loop.stop)  # from here, so that the loop has to wait on a busy machine, too

    loop.call_soon(replace)
    loop.run_forever()
    assert calls


def test_a_method_put_back_while_the_loop_runs_is_no_longer_called(make_loop):
    """The same, the other way round."""
    loop = make_loop()
    calls: list = []
    loop._selector.select = counting(loop._selector.select, calls)

    def put_back() -> None:
        del loop._selector.select
        calls.clear()

    loop.call_soon(put_back)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert calls == []


def test_a_selector_swapped_while_the_loop_runs_is_used(make_loop):
    """With everything that was registered; and the one that is closed is not asked again."""
    loop = make_loop()
    new = Counted()

    def swap() -> None:
        old = loop._selector
        for key in old.get_map().values():
            new.register(key.fileobj, key.events, key.data)
        loop._selector = new
        old.close()

    loop.call_soon(swap)
    loop.call_later(0.01, loop.call_soon_threadsafe, loop.stop)
    loop.run_forever()
    assert new.polls


def test_a_selector_as_an_attribute_of_the_class(loop_class):
    """CPython's own tests make such classes."""

    class Mine(loop_class):
        _selector = None

    loop = Mine(Counted())
    told: list = []
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, lambda: (told.append(a.recv(1)), loop.stop()))
        b.send(b"x")
        loop.run_forever()
        loop.remove_reader(a)
    assert told == [b"x"]
    assert loop._selector.polls
    loop.close()


LOOP = """
import asyncio, ctypes, obsloop, selectors, signal
loop = {loop}()
"""
CORES = {"stock": "asyncio.SelectorEventLoop", "obsloop": "obsloop.Loop"}


@pytest.mark.parametrize("core", CORES)
def test_a_selector_closed_by_a_callback(core):
    """ValueError, not a poll of whatever has that number now. In another process: such a loop cannot be closed."""
    source = """
    loop._selector.unregister(loop._ssock)
    loop.call_soon(loop._selector.close)
    try:
        loop.run_forever()
    except ValueError as exc:
        print(exc)
    loop._selector = selectors.DefaultSelector()
    loop._add_reader(loop._ssock.fileno(), loop._read_from_self)
    loop.close()
    """
    assert other_process(LOOP.format(loop=CORES[core]) + dedent(source)) == "I/O operation on closed epoll object"


def test_a_descriptor_closed_while_it_is_watched(make_loop):
    """Epoll forgets it; the loop goes on, and its number can be watched again."""
    loop = make_loop()
    told: list = []
    r, w = os.pipe()
    loop.add_reader(r, told.append, "old")
    os.write(w, b"x")
    os.close(r)
    os.close(w)
    run_all(loop)
    assert told == []
    loop.remove_reader(r)
    r2, w2 = os.pipe()
    loop.add_reader(r2, told.append, "new")
    os.write(w2, b"x")
    run_briefly(loop)
    loop.remove_reader(r2)
    os.close(r2)
    os.close(w2)
    assert told == ["new"]


def test_many_descriptors_ready_at_once(make_loop):
    """More than any room that was made before: all are reported in the first poll after."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    loop = make_loop()
    ran: set[int] = set()
    pipes = []
    try:
        for n in (1, 40, 1200):
            for _ in range(n):
                r, w = os.pipe()
                os.write(w, b"x")
                loop.add_reader(r, ran.add, r)
                pipes.append((r, w))
            ran.clear()
            run_briefly(loop)
            assert ran == {r for r, _ in pipes}
        ran.clear()
        while pipes:
            r, w = pipes.pop()
            loop.remove_reader(r)
            os.close(r)
            os.close(w)
        run_briefly(loop)
        assert not ran
    finally:
        for r, w in pipes:
            loop.remove_reader(r)
            os.close(r)
            os.close(w)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptor_zero():
    """Standard input is a descriptor like any other."""
    source = """
    import obsloop, os
    r, w = os.pipe(); os.dup2(r, 0); os.write(w, b"hello")
    loop = obsloop.Loop()
    loop.add_reader(0, lambda: (print(os.read(0, 5)), loop.remove_reader(0), loop.stop()))
    loop.run_forever(); loop.close()
    """
    assert other_process(source) == "b'hello'"


@pytest.fixture
def alarm():
    """`alarm(handler, after, every)` sets a timer signal; afterwards all is as before."""
    before = signal.getsignal(signal.SIGALRM)

    def set_alarm(handler, after: float, every: float = 0) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, after, every)

    yield set_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_signals_during_a_wait_neither_end_nor_lengthen_it(make_loop, alarm):
    """PEP 475: the handlers run at once, and the wait goes on for what is left of it."""
    loop = make_loop()
    heard: list = []
    alarm(lambda *_: heard.append(time.monotonic()), 0.005, 0.005)
    end = loop.time() + 0.2
    ended = []
    loop.call_at(end, lambda: (ended.append(loop.time()), loop.stop()))
    loop.run_forever()
    assert ended[0] >= end - loop._clock_resolution
    assert len(heard) >= 5
    assert heard[0] < end


def test_a_signal_handler_that_raises_leaves_an_endless_wait(make_loop, alarm):
    """And the loop can run again."""
    loop = make_loop()

    def handler(*_) -> None:
        raise ZeroDivisionError

    alarm(handler, 0.02)
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    assert not loop.is_running()
    told: list = []
    loop.call_soon(told.append, 1)
    run_briefly(loop)
    assert told == [1]


@pytest.mark.parametrize("core", CORES)
def test_a_signal_handler_that_raises_interrupted_error_ends_only_the_poll(core):
    """`selectors` swallows that one."""
    source = """
    def handler(*_):
        raise InterruptedError
    signal.signal(signal.SIGALRM, handler)
    loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01)
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    loop.close()
    print("swallowed")
    """
    assert other_process(LOOP.format(loop=CORES[core]) + dedent(source)) == "swallowed"


@pytest.mark.parametrize("core", CORES)
def test_a_signal_that_came_before_the_wait_is_handled_before_the_wait(core):
    """A callback in C gets a signal, no Python code runs after it: the handler must not wait for the next event."""
    source = """
    signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(loop.stop))
    raise_in_c = getattr(ctypes.PyDLL(None), "raise")
    loop.call_soon(raise_in_c, int(signal.SIGUSR1))
    loop.run_forever()
    loop.close()
    print("handled")
    """
    assert other_process(LOOP.format(loop=CORES[core]) + dedent(source), timeout=20) == "handled"


def test_an_error_of_the_poll_leaves_the_loop(make_loop):
    """OSError from a selector of the program's own."""

    class Broken(selectors.DefaultSelector):
        broken = True

        def select(self, timeout=None):
            if self.broken:
                raise OSError("broken")
            return super().select(timeout)

    selector = Broken()
    loop = make_loop(selector)
    with pytest.raises(OSError, match="broken"):
        loop.run_forever()
    selector.broken = False
    run_briefly(loop)
