"""An entry while loops come and go: whatever code runs in between, nothing waits for itself, no counter goes back."""

import pytest

import obsloop
from obsloop.metrics import registry
from obsloop.probes.collect import snapshot_of
from tests.support import output, run_briefly

LEASING = """
import faulthandler, gc, signal, sys
import obsloop

faulthandler.dump_traceback_later(50, exit=True)
made = 0

def lease(name):
    global made
    made += 1
    loop = obsloop.Loop(settings=obsloop.Settings(name=f"{name}-{made % 12}", watchdog=False))
    loop._obsloop.lease(loop)
    loop.close()
"""


def test_a_finalizer_may_lease_while_its_thread_leases():
    """A collection starts at any allocation, and a program's `__del__` may run a loop there: both get their blocks."""
    assert (
        output(
            LEASING
            + """
class Garbage:
    def __init__(self):
        self.itself = self
    def __del__(self):
        lease("finalizer")
        if armed:
            Garbage()

armed = True
gc.set_threshold(1)
Garbage()
for _ in range(10):
    lease("program")
armed = False
gc.set_threshold(0)
print(made > 20)
"""
        )
        == "True\n"
    )


def test_a_signal_handler_may_lease_while_its_thread_leases():
    """The handler runs between any two steps of the main thread, those that take a block among them."""
    assert (
        output(
            LEASING
            + """
handled = 0

def handler(*_):
    global handled
    handled += 1
    lease("handler")
    signal.setitimer(signal.ITIMER_REAL, 0.0002)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0002)
while handled < 200:
    lease("program")
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(handled >= 200)
"""
        )
        == "True\n"
    )


def test_a_finalizer_may_count_while_its_thread_counts():
    """An exporter's counts are taken in any code, a finalizer that runs within another count included."""
    assert (
        output(
            LEASING
            + """
class Spent(float):
    def __mul__(self, other):
        obsloop.count_export(1.0, failed=True)
        obsloop.count_dropped_spans()
        return float(self) * other

obsloop.count_export(Spent(1), failed=True)
process = obsloop.process_snapshot()
print(process.value("obsloop.dropped", "export"), process.value("obsloop.dropped", "span"),
      process.value("obsloop.self.time", "export"))
"""
        )
        == "2 1 2.0\n"
    )


@pytest.mark.parametrize("moment", ["taken", "given back"])
def test_a_block_that_changes_hands_is_counted(clean_metrics, moment):
    """Looked at in the very moment when it belongs to no loop."""
    loop = obsloop.Loop(settings=obsloop.Settings(name="one", watchdog=False))
    loop.call_soon(str)
    run_briefly(loop)
    metrics = loop._obsloop.metrics
    seen = []

    class Pausing(list):
        """A list of free blocks that has somebody look before it gets one and after it gave one away."""

        def append(self, block):
            seen.append(snapshot_of(metrics).value("asyncio.eventloop.iterations"))
            super().append(block)

        def pop(self, *args):
            block = super().pop(*args)
            seen.append(snapshot_of(metrics).value("asyncio.eventloop.iterations"))
            return block

    metrics._free = Pausing(metrics._free)
    loop.close()
    if moment == "taken":
        other = obsloop.Loop(settings=obsloop.Settings(name="one", watchdog=False))
        other.snapshot()
        other.close()
    assert seen
    assert set(seen) == {1}


def test_a_name_without_a_loop_yet_can_be_shown(clean_metrics):
    """The entry is there a moment before the first loop has its block."""
    metrics = registry.LoopMetrics("new")
    assert snapshot_of(metrics).value("asyncio.eventloop.iterations") == 0
