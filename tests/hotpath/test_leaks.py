"""Resident memory stays flat over many callbacks, of every kind, in a process of its own. Linux: it reads /proc.

800,000 in all by default; TEST_CALLBACKS=10000000 for the long run.
"""

import os

import pytest

from .support import other_process

CALLBACKS = int(os.environ.get("TEST_CALLBACKS", "800000"))

# Each works off `n` callbacks on `loop`, a thousand at a time; and its share of all callbacks, less for the costly.
WORKS = {
    "callbacks": (0.3, "def put(): loop.call_soon(nothing, 1)"),
    "timers": (0.18, "def put(): loop.call_later(0, nothing, 1)"),
    "cancelled timers": (0.18, "def put(): loop.call_later(60, nothing, 1).cancel()"),
    "tasks": (0.14, "async def nothing_much(): pass\ndef put(): tasks.append(loop.create_task(nothing_much()))"),
    "threadsafe": (0.1, "def put(): loop.call_soon_threadsafe(nothing, 1)"),
    "readers": (0.05, "def put(): loop.add_reader(r, nothing, 1)"),
    "exceptions": (0.05, "def put(): loop.call_soon(fail)"),
}

PROGRAM = """
import os, obsloop
N, PAGE = {n}, os.sysconf("SC_PAGE_SIZE")
loop = obsloop.Loop()
loop.set_exception_handler(lambda loop, context: None)
tasks = []
r, w = os.pipe()
os.write(w, b"x")
def nothing(x): pass
def fail(): raise ValueError
{put}
def batch():
    tasks.clear()
    for _ in range(1000):
        put()
    loop.call_soon(loop.stop)
def work(n):
    for _ in range(max(1, n // 1000)):
        batch()
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()
def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * PAGE
work(N // 10)
before = resident()
work(N)
print(resident() - before)
"""


@pytest.mark.parametrize("kind", WORKS)
def test_resident_memory_is_flat(kind):
    """Less than a megabyte more after all of them: the smallest object, leaked by each of 40,000, would be more."""
    share, put = WORKS[kind]
    n = int(CALLBACKS * share)
    grown = other_process(PROGRAM.format(n=n, put=put), timeout=60 * max(1.0, CALLBACKS / 800_000))
    assert int(grown) < 1 << 20
