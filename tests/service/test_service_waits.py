"""What /tasks shows of who waits for whom: as a page, as text, and for several workers together."""

import json
import re

from obsloop.service import waits
from tests.support import output

PROGRAM = """
import asyncio, json, urllib.request, obsloop

def get(**headers):
    from obsloop.service.messages import Request
    from obsloop.service.tasks import tasks
    return tasks(Request("GET", "/tasks", "", headers)).body.decode()

async def holds(lock):
    async with lock:
        await asyncio.get_running_loop().create_future()

async def wants(lock):
    async with lock:
        pass

async def leaf():
    await asyncio.sleep(3600)

async def root():
    await asyncio.gather(*(leaf() for _ in range(3)))

async def one_of_two(other):
    await asyncio.sleep(0)
    await asyncio.wait([other[0]])

async def main():
    lock = asyncio.Lock()
    tasks = [asyncio.create_task(holds(lock), name="<i>holder")]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(wants(lock), name=f"wants-{i}") for i in range(2)]
    tasks.append(asyncio.create_task(root(), name="root"))
    first, second = [], []
    a = asyncio.create_task(one_of_two(second), name="a")
    b = asyncio.create_task(one_of_two(first), name="b")
    first.append(a)
    second.append(b)
    gone = asyncio.create_task(leaf(), name="gone")
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.wait([gone])
    kinds = "text/html", "text/plain", "application/json"
    print(json.dumps({kind: await asyncio.to_thread(get, accept=kind) for kind in kinds}), flush=True)
    import os
    os._exit(0)  # what waits in a circle cannot be cancelled

obsloop.run(main(), settings=obsloop.Settings(track_tasks=True, track_locks=True))
"""


def line(text):
    """The number of the line of `PROGRAM` that has this text. `output` puts one line before it."""
    return next(number for number, each in enumerate(PROGRAM.splitlines(), 2) if text in each)


def test_the_page_and_the_text_say_who_waits_for_whom():
    """A circle of two, a lock with its holder and two waiters, a tree with three alike leaves, and a cancellation."""
    answers = json.loads(output(PROGRAM))
    page, text = answers["text/html"], answers["text/plain"]
    found = json.loads(answers["application/json"])

    (circle,) = found["circles"]
    assert sorted(circle["names"]) == ["a", "b"]
    for shown in (page, text):
        assert "These tasks wait for each other and cannot go on" in re.sub(r"\s+", " ", shown)

    (lock,) = [each for each in found["locks"] if each["what"].startswith("Lock")]
    assert (lock["waiters"], [each["task"] for each in lock["held_by"]]) == (2, ["<i>holder"])
    assert lock["made_at"] == f"<string>:{line('lock = asyncio.Lock()')}"
    assert [(each["at"], each["tasks"]) for each in lock["places"]] == [(f"<string>:{line('async def wants') + 1}", 2)]
    assert "Locks, queues and events with waiters" in page
    assert "&lt;i&gt;holder" in page
    assert "<i>holder" not in page
    assert re.search(r"^ *2 .*Lock.*<i>holder", text, re.MULTILINE), text

    assert "Who awaits whom" in page
    assert re.search(r"^root: __main__\.root .*gather", text, re.MULTILINE), text
    assert re.search(r"^  Task-\d+ and 2 more: __main__\.leaf .*sleep", text, re.MULTILINE), text

    (kind,) = [each for each in found["cancellations"] if each["coroutine"] == "__main__.leaf"]
    assert (kind["count"], kind["last_task"], kind["in"]) == (1, "gone", "main")
    assert kind["at"] == f"<string>:{line('gone.cancel()')}"
    for shown in (page, text):
        assert "Who cancels tasks" in shown


def test_several_workers_make_one_report():
    """The lock with the longest wait first, the last cancellation first; what one of them left out stays counted."""

    def report(longest, waiters, last_seen, left_out):
        return {
            "circles": [{"text": f"of {waiters}"}],
            "circles_left_out": left_out,
            "locks": [{"longest_seconds": longest, "waiters": waiters}] * 60,
            "locks_left_out": left_out,
            "cancellations": [{"last_seen": last_seen}],
            "cancellations_left_out": left_out,
        }

    found = waits.merged([report(None, 9, "2026-01-01T00:00:00Z", 1), report(2.0, 1, "2026-01-02T00:00:00Z", 2)])
    assert [each["text"] for each in found["circles"]] == ["of 9", "of 1"]
    assert (found["circles_left_out"], found["cancellations_left_out"]) == (3, 3)
    assert [each["waiters"] for each in found["locks"]] == [1] * 60 + [9] * (waits.MAX_LOCKS - 60)
    assert found["locks_left_out"] == 3 + 120 - waits.MAX_LOCKS
    assert [each["last_seen"][:10] for each in found["cancellations"]] == ["2026-01-02", "2026-01-01"]


def test_each_root_of_the_tree_says_its_worker():
    """Tasks of two workers have the same names and numbers; those further in are on their root's worker."""

    def task(worker, number, awaits):
        return {
            "worker": worker, "id": number, "name": f"t{number}", "coroutine": "app.f", "awaits": awaits,
            "own_at": "app.py:3", "at": None, "state": "waiting", "waits_for": "task", "waiting_on": "task t2",
            "waiting_seconds": 0.0,
        }  # fmt: skip

    tasks = [task(worker, number, awaits) for worker in (0, 1) for number, awaits in ((1, [2]), (2, []))]
    found = {"tasks": tasks, "awaited_not_listed": 0}
    assert waits.tree_text(found) == [
        "Who awaits whom",
        "t1: app.f waits: task t2, worker 0",
        "  t2: app.f waits: task t2",
        "t1: app.f waits: task t2, worker 1",
        "  t2: app.f waits: task t2",
    ]
    page = waits.tree_html(found)
    assert page.count("worker") == 2
    assert page.count("worker 1 ") == 1
