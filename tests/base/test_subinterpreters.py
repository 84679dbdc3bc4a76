"""Loops in subinterpreters: they run as stock ones do, and the interpreter can be ended afterwards."""

import pytest

from tests.support import program

PROGRAM = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    made = interpreters.create("isolated" if {isolated} else "legacy")
    run = interpreters.exec
else:
    import _xxsubinterpreters as interpreters
    made = interpreters.create(isolated={isolated})
    run = interpreters.run_string

failed = run(made, f'''
import sys
sys.path[:] = {{sys.path!r}}
import asyncio, atexit, logging, time
import obsloop

logging.basicConfig(level=logging.INFO)
def twice():
    for _ in range(2):
        obsloop.run(main(), settings=obsloop.Settings(address={address!r}))

async def main():
    time.sleep(0.15)
    await asyncio.sleep(0.01)

atexit.register(obsloop.run, main())  # after what obsloop itself does at the end
twice()
print(obsloop.snapshots()["main"].value("asyncio.eventloop.iterations") > 0, flush=True)
''')
assert not failed, failed
interpreters.destroy(made)
print("ended", flush=True)
import os
os._exit(0)  # CPython 3.12.1 itself aborts when it takes down what an isolated interpreter with asyncio left
"""


@pytest.mark.parametrize("isolated", [False, True], ids=["legacy", "isolated"])
def test_a_subinterpreter_that_ran_a_loop_can_be_ended(isolated):
    """Nothing of ours is left running in it; where it refuses daemon threads, nothing is watched and nothing is said.

    It makes a loop once more when it ends.
    """
    done = program(PROGRAM.format(isolated=isolated, address=None))
    assert (done.returncode, done.stdout) == (0, "True\nended\n"), done.stderr
    assert done.stderr == "" or "in blocked" in done.stderr or "blocked for" in done.stderr


@pytest.mark.parametrize("isolated", [False, True], ids=["legacy", "isolated"])
def test_a_subinterpreter_is_not_served(isolated):
    """The service's thread would be in the way of its end: one line says so, and the loops run."""
    done = program(PROGRAM.format(isolated=isolated, address="127.0.0.1:0"))
    assert (done.returncode, done.stdout) == (0, "True\nended\n"), done.stderr
    refused = [line for line in done.stderr.splitlines() if "cannot serve on 127.0.0.1:0: this is a sub" in line]
    assert len(refused) == 1
    assert "Traceback" not in done.stderr
