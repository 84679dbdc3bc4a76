"""The reference's four examples, run as programs.

Their text is as printed, but for the way to get a loop: `asyncio.get_event_loop()` made one in Python 3.5,
and does not any more.
"""

import datetime
import itertools
import re
import signal

import pytest

from .support import LIMIT

HELLO_WORLD = """
import asyncio

def hello_world(loop):
    print('Hello World')
    loop.stop()

loop = {loop}

# Schedule a call to hello_world()
loop.call_soon(hello_world, loop)

# Blocking call interrupted by loop.stop()
loop.run_forever()
loop.close()
"""

DISPLAY_DATE = """
import asyncio
import datetime

def display_date(end_time, loop):
    print(datetime.datetime.now())
    if (loop.time() + 1.0) < end_time:
        loop.call_later(1, display_date, end_time, loop)
    else:
        loop.stop()

loop = {loop}

# Schedule the first call to display_date()
end_time = loop.time() + 5.0
loop.call_soon(display_date, end_time, loop)

# Blocking call interrupted by loop.stop()
loop.run_forever()
loop.close()
"""

WATCH_A_DESCRIPTOR = """
import asyncio
try:
    from socket import socketpair
except ImportError:
    from asyncio.windows_utils import socketpair

# Create a pair of connected file descriptors
rsock, wsock = socketpair()
loop = {loop}

def reader():
    data = rsock.recv(100)
    print("Received:", data.decode())
    # We are done: unregister the file descriptor
    loop.remove_reader(rsock)
    # Stop the event loop
    loop.stop()

# Register the file descriptor for read event
loop.add_reader(rsock, reader)

# Simulate the reception of data from the network
loop.call_soon(wsock.send, 'abc'.encode())

# Run the event loop
loop.run_forever()

# We are done, close sockets and the event loop
rsock.close()
wsock.close()
loop.close()
"""

SIGNAL_HANDLERS = """
import asyncio
import functools
import os
import signal

def ask_exit(signame):
    print("got signal %s: exit" % signame)
    loop.stop()

loop = {loop}
for signame in ('SIGINT', 'SIGTERM'):
    loop.add_signal_handler(getattr(signal, signame),
                            functools.partial(ask_exit, signame))

print("Event loop running forever, press Ctrl+C to interrupt.")
print("pid %s: send SIGINT or SIGTERM to exit." % os.getpid())
try:
    loop.run_forever()
finally:
    loop.close()
"""


def test_hello_world(run_program):
    """Hello World with call_soon()."""
    assert run_program(HELLO_WORLD) == "Hello World\n"


def test_display_the_date(run_program):
    """Display the current date with call_later(): each second for five seconds."""
    lines = run_program(DISPLAY_DATE).splitlines()
    times = [datetime.datetime.fromisoformat(line) for line in lines]
    # Four more fit into five seconds if each of them is on time; on a busy machine fewer.
    assert 2 <= len(times) <= 5
    for earlier, later in itertools.pairwise(times):
        # By the wall clock, which may be adjusted a little while the loop's own clock runs.
        assert (later - earlier).total_seconds() >= 0.99


def test_watch_a_descriptor(run_program):
    """Watch a file descriptor for read events."""
    assert run_program(WATCH_A_DESCRIPTOR) == "Received: abc\n"


@pytest.mark.parametrize("signame", ["SIGINT", "SIGTERM"])
def test_signal_handlers(program, signame):
    """Set signal handlers for SIGINT and SIGTERM."""
    with program(SIGNAL_HANDLERS, PYTHONUNBUFFERED="1") as process:
        first, second = process.stdout.readline(), process.stdout.readline()
        assert first == "Event loop running forever, press Ctrl+C to interrupt.\n"
        assert re.fullmatch(rf"pid {process.pid}: send SIGINT or SIGTERM to exit\.\n", second)
        process.send_signal(getattr(signal, signame))
        out, err = process.communicate(timeout=LIMIT)
    assert (out, err) == (f"got signal {signame}: exit\n", "")
    assert process.returncode == 0
