"""What the executors are busy with, in /tasks over real HTTP and as text."""

import json

from tests.support import output

PROGRAM = """
import asyncio, json, threading, time, urllib.request
from concurrent.futures import ThreadPoolExecutor
import obsloop
from obsloop import service
from obsloop.service import executors

url = service.ensure("127.0.0.1:0", unhealthy_after=60.0)
over = threading.Event()

def hold():
    over.wait(60)

def get(format, into):
    with urllib.request.urlopen(url + "/tasks?format=" + format, timeout=60) as answer:
        into.append(answer.read().decode())

async def answer(format):
    into = []
    thread = threading.Thread(target=get, args=(format, into))
    thread.start()
    while not into:
        await asyncio.sleep(0.01)
    thread.join()
    return into[0]

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    idle = json.loads(await answer("json"))["executors"]
    began = time.monotonic()
    jobs = [loop.run_in_executor(None, hold) for _ in range(5)]
    await asyncio.sleep(1.2)  # longer than an answer is kept
    report = json.loads(await answer("json"))["executors"]
    waited = time.monotonic() - began
    page = await answer("html")
    text = executors.text(executors.report())
    over.set()
    await asyncio.gather(*jobs)
    print(json.dumps([idle, report, waited, page, text, executors.text(executors.report())]))

obsloop.run(main(), settings=obsloop.Settings(name="<main>", starved_after=50.0))
"""


def test_tasks_has_a_line_for_each_executor():
    """Two threads with a job each, three jobs that wait for a known time; and who holds the threads."""
    idle, report, waited, page, text, after = json.loads(output(PROGRAM))
    assert idle == []
    (entry,) = report
    assert 1.2 <= entry.pop("longest_wait_seconds") <= waited
    (holder,) = entry.pop("held_by")
    assert holder.pop("file").startswith("<string>:")
    assert holder == {"name": "__main__.hold", "workers": 2}
    assert entry == {
        "loop": "<main>",
        "executor": "default",
        "workers": "threads",
        "active": 2,
        "threads": 2,
        "limit": 2,
        "queued": 3,
    }
    line = "default: 2 of 2 threads busy, 3 queued, oldest "
    assert f"<li>&lt;main&gt;: {line}" in page
    assert text.startswith(f"<main>: {line}")
    assert text.endswith(" s; __main__.hold (2)\n")
    assert after == "<main>: default: 0 of 2 threads busy, 0 queued\n"
