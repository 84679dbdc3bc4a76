"""Signals for the loop's handlers are counted by name."""

import asyncio
import os
import signal

import pytest

import obsloop
from obsloop.probes.signals import name_of
from tests.support import LIMIT, forget_everything

DELIVERED = "asyncio.signal.delivered"


@pytest.mark.parametrize("way", ["made", "instrumented"])
def test_signals_that_have_a_handler(way):
    """Five of one and two of another, one after the other; one without a handler on the loop does not count."""
    forget_everything()
    settings = obsloop.Settings(name="main")
    loop = (
        obsloop.Loop(settings=settings) if way == "made" else obsloop.instrument(asyncio.SelectorEventLoop(), settings)
    )
    realtime = signal.SIGRTMIN + 3
    arrived = asyncio.Event()

    async def main():
        for number in (signal.SIGUSR1, realtime):
            loop.add_signal_handler(number, arrived.set)
        for number in (signal.SIGUSR1,) * 5 + (realtime,) * 2:
            os.kill(os.getpid(), number)
            await asyncio.wait_for(arrived.wait(), LIMIT)
            arrived.clear()
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.sleep(0.01)
        for number in (signal.SIGUSR1, realtime):
            assert loop.remove_signal_handler(number)

    before = signal.signal(signal.SIGUSR2, lambda *args: None)
    try:
        loop.run_until_complete(main())
        assert dict(loop.snapshot()[DELIVERED]) == {("SIGUSR1",): 5, ("SIGRTMIN+3",): 2}
    finally:
        signal.signal(signal.SIGUSR2, before)
        loop.close()


def test_names():
    """Every signal there is has one, and no two the same."""
    names = [name_of(number) for number in signal.valid_signals()]
    assert len(set(names)) == len(names)
    assert name_of(signal.SIGTERM) == "SIGTERM"
