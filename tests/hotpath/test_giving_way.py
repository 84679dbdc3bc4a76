"""A batch of callbacks in C keeps other threads and signals waiting no longer than on the stock loop.

Each batch would take a second or more. It becomes short when the one who waits has had its turn. No time is asserted.
"""

import signal
import threading
from typing import Any

import pytest

import obsloop

from .support import run_all

N = 10_000


def work() -> tuple[list[int], Any]:
    """A C function that takes a tenth of a millisecond until the list is emptied."""
    numbers = list(range(10_000))
    return numbers, numbers.count


def test_a_thread_gets_its_turn_within_a_batch(make_loop):
    """It is woken by the first callback, and finds the batch running."""
    loop = make_loop()
    loop.slow_callback_duration = 1000  # what is done about slow callbacks would give way, too
    numbers, count = work()
    begun, left = threading.Event(), []

    def other() -> None:
        begun.wait(30)
        left.append(len(waiting))
        numbers.clear()

    waiting = loop._ready
    thread = threading.Thread(target=other)
    thread.start()
    loop.call_soon(begun.set)
    for _ in range(N):
        loop.call_soon(count, -1)
    run_all(loop)
    thread.join()
    assert 0 < left[0] < N


def test_a_signal_handler_gets_its_turn_within_a_batch(make_loop):
    """The signal arrives while the batch runs; its handler is Python's."""
    loop = make_loop()
    loop.slow_callback_duration = 1000  # what is done about slow callbacks would give way, too
    numbers, count = work()
    left: list[int] = []

    def handler(*args: object) -> None:
        left.append(len(waiting))
        numbers.clear()

    waiting = loop._ready
    before = signal.signal(signal.SIGALRM, handler)
    try:
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.005)
        for _ in range(N):
            loop.call_soon(count, -1)
        run_all(loop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < left[0] < N


@pytest.mark.compiled_only
def test_an_exception_of_a_signal_handler_leaves_the_rest_of_the_batch():
    """It leaves `run_forever` between two callbacks, never in the middle of one; the others run afterwards."""
    loop = obsloop.Loop()
    loop.slow_callback_duration = 1000
    numbers, count = work()
    ran: list[int] = []

    def handler(*args: object) -> None:
        numbers.clear()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    interrupted = False
    try:
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.005)
        for i in range(N):
            loop.call_soon(count, -1)
            loop.call_soon(ran.append, i)
        try:
            run_all(loop)
        except KeyboardInterrupt:
            interrupted = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert len(ran) < N
    run_all(loop)
    assert ran == list(range(N))
    loop.close()
