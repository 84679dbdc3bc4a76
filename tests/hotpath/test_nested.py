"""Iterations within iterations: from a signal handler, and such that end in another order than they began.

Each in a process of its own, since what goes wrong there is a crash.
"""

import pytest

from .support import other_process

FROM_A_SIGNAL = """
import faulthandler, os, signal, threading
faulthandler.enable()
if "{core}" == "stock":
    import asyncio
    loop = asyncio.SelectorEventLoop()
else:
    import obsloop
    loop = obsloop.Loop()
read, write = os.pipe()
more, told = [], []

def handler(number, frame):
    # Many descriptors, so that the iteration in here needs more room for events than the one around it.
    for _ in range(500):
        more.append(os.dup(read))
        loop.add_reader(more[-1], told.append, "never")
    loop.call_soon(told.append, "inner")
    loop._run_once()
    for fd in more:
        loop.remove_reader(fd)
    os.write(write, b"x")

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
loop.add_reader(read, told.append, "outer")
loop.call_later(30, told.append, "never")
loop._run_once()      # waits; the signal arrives; then the pipe can be read
print(*told)
loop.close()
"""


@pytest.mark.parametrize("core", ["stock", "obsloop"])
def test_a_signal_handler_runs_an_iteration_while_the_loop_waits(core):
    """The wait goes on afterwards, and what it finds is handled by the same iteration."""
    assert other_process(FROM_A_SIGNAL.format(core=core)) == "inner outer"


OTHER_ORDER = """
import faulthandler, gc, sys, threading, weakref
faulthandler.enable()
import obsloop
from obsloop.hotpath import backend as _core
from obsloop.introspect import frames as _frames

class Callback:
    def __init__(self, do):
        self.do = do
    def __call__(self):
        self.do()

def running():
    # What another thread sees; the pure core looks for it on the stack.
    frames = _frames.of_thread(threading.get_ident(), _core.ITERATION).wanted if _core.ITERATION else []
    return _core.running_handle(loop, frames, [])

loop = obsloop.Loop()
inner_runs, outer_is_over = threading.Event(), threading.Event()

def inner():
    inner_runs.set()
    assert outer_is_over.wait(30)

def outer():
    loop.call_soon(Callback(inner))
    thread.start()
    assert inner_runs.wait(30)

thread = threading.Thread(target=loop._run_once)
callback = Callback(outer)
gone = weakref.ref(callback)
loop.call_soon(callback)
del callback
loop._run_once()      # ends while the iteration that began within it goes on
outer_is_over.set()
thread.join()
for _ in range(100):
    assert running() is None, "a handle that does not run"
assert gone() is None, "what has run is kept"
loop.call_soon(loop.stop)
loop.run_forever()
assert running() is None
loop.close()
print("done")
"""


def test_the_outer_iteration_ends_before_the_inner_one():
    """As with greenlets, here in two threads: no handle is seen as running, none is kept, and the loop runs on."""
    assert other_process(OTHER_ORDER) == "done"
