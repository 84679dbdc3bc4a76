"""/tasks over real HTTP, in processes of their own as served in life: who is alive, where they wait, for how long."""

import json

from tests.support import output

PRELUDE = """
import asyncio, json, threading, time, urllib.request
import obsloop
from obsloop import service

url = service.ensure("127.0.0.1:0", unhealthy_after=60.0)

def get(path="/tasks", **headers):
    request = urllib.request.Request(url + path, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()

def tasks():
    return {task["name"]: task for task in json.loads(get())["tasks"]}

async def inner():
    await asyncio.get_running_loop().create_future()

async def outer():
    await inner()
"""


def run(source):
    return output(PRELUDE + source)


def test_tasks_are_told_with_their_place():
    """A named task in two coroutines; asked for by another thread of the same program."""
    (task,) = json.loads(
        run("""
async def main():
    task = asyncio.create_task(outer(), name="worker 7")
    print(json.dumps([(await asyncio.to_thread(tasks))["worker 7"]]))

obsloop.run(main())
""")
    )
    assert task.pop("age_seconds") >= 0
    assert task.pop("age_resolution_seconds") >= 0
    assert task.pop("at").startswith("<string>:")
    assert task.pop("own_at").startswith("<string>:")
    assert task.pop("waiting_seconds") >= 0
    assert task.pop("waiting_resolution_seconds") >= 0
    assert isinstance(task.pop("id"), int)
    assert task == {
        "loop": "main",
        "name": "worker 7",
        "coroutine": "__main__.outer",
        "state": "waiting",
        "cancelling": False,
        "waits_for": "Future",
        "waiting_on": "future",
        "in": "inner",
        "own_in": "inner",
        "awaits": [],
        "created_at": None,
        "created_in": None,
        "created_by": None,
        "cancelled": None,
    }


def test_ages_grow_by_the_services_own_censuses():
    """A task of known age, after some seconds of real time: the age lies where it is said to lie."""
    run("""
async def main():
    early = time.monotonic()
    task = asyncio.create_task(outer(), name="aged")
    late = time.monotonic()
    end = late + 60
    while True:
        before = time.monotonic()
        shown = (await asyncio.to_thread(tasks))["aged"]
        after = time.monotonic()
        age, resolution = shown["age_seconds"], shown["age_resolution_seconds"]
        assert age <= after - early, (shown, after - early)
        kept = 1.0  # so long the same answer may be given again
        assert age + resolution + kept >= before - late, (shown, before - late)
        if age > 1.5:
            break
        assert after < end
        await asyncio.sleep(0.1)
    assert obsloop.tasks.census.census_time_ns() > 0

import obsloop.tasks.census
obsloop.run(main())
""")


def test_it_answers_while_the_loop_is_blocked():
    """That is when it is needed: the task that blocks is the one that runs, and its line is shown."""
    shown = json.loads(
        run("""
go_on = threading.Event()
begun = threading.Event()

async def main():
    waiting = asyncio.create_task(outer(), name="waiting")
    await asyncio.sleep(0)
    begun.set()
    go_on.wait(60)

thread = threading.Thread(target=lambda: obsloop.run(main()), name="blocked")
thread.start()
begun.wait(60)
print(get())
go_on.set()
thread.join()
""")
    )["tasks"]
    assert {(task["loop"], task["state"], task["in"]) for task in shown} == {
        ("blocked", "waiting", "inner"),
        ("blocked", "running", "main"),
    }


def test_the_page_is_escaped():
    """A task may be called anything."""
    page = run("""
async def main():
    task = asyncio.create_task(outer(), name="<script>alert(1)</script>\\x1b[2J" + "x" * 1_000_000)
    print(await asyncio.to_thread(get, accept="text/html"))
    print(await asyncio.to_thread(get))

obsloop.run(main())
""")
    page, _, report = page.partition("</html>")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;?[2Jxxx" in page
    assert len(page) + len(report) < 20_000


def test_an_answer_is_kept_and_shared_for_a_second_at_most():
    """The dearer it is, the longer; JSON and the page each; and a child after fork has its own."""
    run("""
import obsloop.tasks.census
from obsloop.service import tasks as page
from obsloop.service.messages import Request

clock, taken, seconds = [100.0], [], [0.03]
page.time = type("Clock", (), {"monotonic": lambda: clock[0], "time": time.time})

def listing():
    clock[0] += seconds[0]
    taken.append(seconds[0])
    return obsloop.tasks.census.Listing()

page.listing = listing

def ask(query=""):
    return page.tasks(Request("GET", "/tasks", query, {}))

first = ask()
clock[0] += 0.29
assert ask() is first and len(taken) == 1
assert ask("format=html") is not first and len(taken) == 2  # which took 0.03 s again
assert ask() is not first and len(taken) == 3
seconds[0] = 3.0
clock[0] += 0.5
dear = ask()
clock[0] += 0.99
assert ask() is dear and len(taken) == 4
clock[0] += 0.02
seconds[0] = 0.0
assert ask() is not dear
assert ask() is not ask()  # what costs nothing is always new
assert ask("format=xml").status == 400
""")


def test_no_loop_no_tasks():
    """An empty list for programs, a sentence for people."""
    assert run("print(json.loads(get())['tasks'], 'No observed loop runs' in get(accept='text/html'))") == "[] True\n"


def test_ten_thousand_tasks_are_a_thousand_and_a_number():
    """Bounded, and the rest is counted."""
    assert run("""
async def main():
    tasks = [asyncio.create_task(outer()) for _ in range(10_000)]
    found = json.loads(await asyncio.to_thread(get))
    print(len(found["tasks"]), found["not_shown"])
    print("And 9001 more" in await asyncio.to_thread(get, "/tasks?format=html"))

obsloop.run(main())
""").splitlines() == ["1000 9001", "True"]
