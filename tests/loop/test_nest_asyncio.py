"""Beside `nest_asyncio`, which puts its own iteration into a loop's class and asyncio's tasks in Python everywhere."""

import sys

import pytest

from tests.support import output, program

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="nest_asyncio 1.6 needs event loop policies, which warn from 3.14 on"
)

APPLIED_FIRST = """
import asyncio, nest_asyncio
asyncio.set_event_loop(asyncio.SelectorEventLoop())
nest_asyncio.apply()
import obsloop

async def nothing():
    pass

async def main():
    await asyncio.gather(nothing(), nothing(), asyncio.sleep(0.01))
    return "ran"

loop = obsloop.Loop()
print(loop.run_until_complete(main()))
figures = loop.snapshot()
steps = figures.histogram("asyncio.eventloop.callback.duration", "task_step").count
print(steps >= 4, figures.value("asyncio.task.active"), obsloop.core)
loop.close()
asyncio.get_event_loop().close()
"""


@pytest.mark.parametrize("core", ["", "1"], ids=["compiled", "pure"])
def test_imported_after_it_was_applied(core):
    """Loops that it has not patched are timed as ever, their tasks being asyncio's own in Python."""
    assert output(APPLIED_FIRST, OBSLOOP_PURE=core).startswith("ran\nTrue 0 ")


APPLIED_LATER = """
import asyncio, json, logging, time, urllib.request
import nest_asyncio
import obsloop
from obsloop import service

logging.basicConfig(format="%(levelname)s %(message)s")
url = service.ensure("127.0.0.1:0", unhealthy_after=2.0)

def health():
    with urllib.request.urlopen(url + "/healthz", timeout=20) as answer:
        return answer.status, json.load(answer)["running"]

async def nested():
    await asyncio.sleep(0.5)
    return await asyncio.to_thread(health)

async def main():
    {before}
    await asyncio.sleep(0.01)
    print(await asyncio.to_thread(health))
    nest_asyncio.apply()
    loop = asyncio.get_running_loop()
    {after}
    await asyncio.sleep(0.5)
    time.sleep(0.5)
    found = loop.snapshot()
    print(found.running, found.blocked_time)
    print(await asyncio.to_thread(health))
    before = sum(loop.snapshot().value("asyncio.eventloop.time", s) for s in ("callback", "overhead"))
    await asyncio.sleep(0.3)
    after = sum(loop.snapshot().value("asyncio.eventloop.time", s) for s in ("callback", "overhead"))
    print(after - before < 0.2)

{run}
"""


@pytest.mark.parametrize(
    ("before", "after", "run"),
    [
        ("obsloop.instrument()", "", "asyncio.run(main())"),
        ("", "print(loop.run_until_complete(nested()))", "obsloop.run(main())"),
    ],
    ids=["instrumented", "nested"],
)
def test_applied_to_an_observed_loop(before, after, run):
    """What is not timed any more is not claimed to run, nor to be blocked; one line in the log says so."""
    done = program(APPLIED_LATER.format(before=before, after=after, run=run))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "(200, ['main'])"
    assert lines[1:] == [*(["(200, [])"] if after else []), "False 0.0", "(200, [])", "True"], done.stderr
    (warned,) = [line for line in done.stderr.splitlines() if "no longer timed" in line]
    assert warned.startswith("WARNING loops of class ")
