"""Wake-ups from other threads share a write to the loop's own pipe, and none is lost."""

import asyncio
import contextlib
import os
import signal
import socket
import threading

import pytest

import obsloop
from tests.support import LIMIT, run_briefly

from .support import run_all


@pytest.fixture
def loop():
    """A loop of the core under test."""
    loop = obsloop.Loop()
    yield loop
    loop.close()


def on_the_way(loop: obsloop.Loop) -> int:
    """How many bytes wait in the loop's own pipe."""
    try:
        return len(loop._ssock.recv(4096, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


def test_a_burst_writes_once(loop):
    """A thousand calls before the loop reads write one byte, and each callback runs. So does the next burst."""
    ran: list[int] = []
    for _ in range(3):
        for number in range(1000):
            loop.call_soon_threadsafe(ran.append, number)
        assert on_the_way(loop) == 1
        run_all(loop)
        assert on_the_way(loop) == 0
        assert ran == list(range(1000))
        ran.clear()


def test_each_wake_up_of_a_sleeping_loop_arrives(loop):
    """A thread waits for each callback before it calls again, so that the loop sleeps, or is about to, each time."""
    late: list[int] = []

    def calls() -> None:
        for number in range(3000):
            ran = threading.Event()
            loop.call_soon_threadsafe(ran.set)
            if not ran.wait(LIMIT):
                late.append(number)
                break
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=calls)
    thread.start()
    loop.call_later(LIMIT, loop.stop)
    loop.run_forever()
    thread.join(LIMIT)
    assert not late


def test_calls_from_the_loops_own_callbacks_arrive(loop):
    """One call in each iteration, while the byte of the last one may still be on the way."""
    left = 500

    def again() -> None:
        nonlocal left
        left -= 1
        loop.call_soon_threadsafe(again if left else loop.stop)

    loop.call_soon_threadsafe(again)
    loop.run_forever()
    assert left == 0


@pytest.mark.parametrize("where", ["class", "loop"])
def test_a_programs_own_way_to_wake_is_called_each_time(where):
    """Asyncio calls it for every handle, whether a byte is on the way or not."""
    woken: list[int] = []

    class Mine(obsloop.Loop):
        def _write_to_self(self) -> None:
            woken.append(1)
            super()._write_to_self()

    loop = Mine() if where == "class" else obsloop.Loop()
    if where == "loop":
        loop._write_to_self = lambda: woken.append(1)
    for _ in range(5):
        loop.call_soon_threadsafe(print)
    assert len(woken) == 5
    loop._ready.clear()
    run_briefly(loop)
    loop.close()


def test_a_programs_own_way_to_read_gets_each_byte():
    """It does not say that no byte is on the way any more, so every call has to write."""
    got: list[bytes] = []

    class Mine(obsloop.Loop):
        def _read_from_self(self) -> None:
            got.append(self._ssock.recv(4096))

    loop = Mine()
    for _ in range(5):
        loop.call_soon_threadsafe(run_briefly)
    loop._ready.clear()
    run_all(loop)
    loop.close()
    assert b"".join(got) == bytes(5)


def test_a_loop_that_is_observed_later_writes_each_time():
    """Its pipe is read by asyncio's method, which was registered before."""
    loop = asyncio.SelectorEventLoop()
    observed = obsloop.instrument(loop)
    ran: list[int] = []
    for number in range(5):
        observed.call_soon_threadsafe(ran.append, number)
    assert on_the_way(observed) == 5
    run_all(observed)
    loop.close()
    assert ran == [0, 1, 2, 3, 4]


def test_signals_come_through_the_same_pipe(loop):
    """With the byte of a wake-up before and after them."""
    seen: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")
    loop.call_soon_threadsafe(seen.append, "before")
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.call_soon_threadsafe(seen.append, "after")
    run_all(loop)
    run_all(loop)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert sorted(seen) == ["after", "before", "signal"]


def test_a_full_pipe_wakes_too(loop):
    """Nothing can be written; the bytes that fill it wake the loop, and the next burst writes one."""
    with contextlib.suppress(BlockingIOError):
        while True:
            loop._csock.send(bytes(65536))
    ran: list[int] = []
    loop.call_soon_threadsafe(ran.append, 1)
    while on_the_way(loop):
        run_briefly(loop)
    loop.call_soon_threadsafe(ran.append, 2)
    loop.call_soon_threadsafe(ran.append, 3)
    assert on_the_way(loop) == 1
    run_all(loop)
    assert ran == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the tests' process is
def test_a_forked_child_does_not_wait_for_its_parents_byte(loop):
    """The parent has read the byte that was on the way; the child's first call writes another."""
    loop.call_soon_threadsafe(run_briefly)
    loop._ready.clear()
    loop._ssock.recv(4096)
    pid = os.fork()
    if pid == 0:
        try:
            loop.call_soon_threadsafe(run_briefly)
            os._exit(on_the_way(loop))
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    loop._ready.clear()
