"""/slow over real HTTP: what took too long lately, for programs and for people."""

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.request
from traceback import FrameSummary

import pytest

import obsloop
from obsloop.blocking import recent
from obsloop.events import LoopBlocked, LoopUnblocked, SlowCallback, SlowIteration
from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_on
from obsloop.service.messages import MAX_BODY
from obsloop.service.routes import ROUTES, Options
from obsloop.service.server import Server

HOSTILE = "<script>alert(1)</script>&\"'\x1b[2J\u202e\udc80"


@pytest.fixture(scope="module")
def url():
    """One service for this file."""
    listener = listen_on("127.0.0.1", 0)
    Server([Listener(listener, ROUTES)], Options(1.0)).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def nothing_yet():
    """Each test begins and ends as a new process does."""
    recent.forked()
    yield
    recent.forked()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return answer.headers, answer.read().decode()


def report(url):
    return json.loads(get(f"{url}/slow")[1])


def make(cls, name="app.f", **more):
    return cls(
        loop_name="main",
        kind="callback",
        name=name,
        filename="/srv/app.py",
        lineno=7,
        duration=0.5,
        schedule_delay=0.25,
        started_at=1_700_000_000.5,
        **more,
    )


def test_a_callback_that_was_slow_is_found_again(url):
    """A known delay in a real loop, told with its name, its place and its moment."""

    async def culprit():
        time.sleep(0.3)

    before = time.time()
    with asyncio.Runner(loop_factory=obsloop.new_event_loop) as runner:
        runner.run(culprit())
    found = report(url)
    assert found["process"] == os.getpid()
    assert found["older"] == 0
    (event,) = [e for e in found["events"] if e["event"] == "slow_callback"]
    assert event["loop"] == "main"
    assert event["kind"] == "task_step"
    assert event["name"].endswith("culprit")
    assert event["file"] == f"{__file__}:{culprit.__code__.co_firstlineno}"
    assert event["duration_seconds"] >= 0.3
    assert event["started_at"].endswith("Z")
    assert event["started_at"][:10] == time.strftime("%Y-%m-%d", time.gmtime(before))


def test_a_block_is_seen_while_it_lasts_and_when_it_is_over(url):
    """The service answers while the loop does not: "lasting" first, the whole duration afterwards, in one entry."""
    go_on = threading.Event()
    loop = obsloop.new_event_loop()
    loop.call_soon(go_on.wait, 60)
    loop.call_later(0.2, loop.stop)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def blocks(lasting):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = [e for e in report(url)["events"] if e["event"] == "loop_blocked"]
            if found and found[0]["lasting"] == lasting:
                return found
            time.sleep(0.05)
        return []

    try:
        (event,) = blocks(lasting=True)
        first = event["duration_seconds"]
        (event,) = blocks(lasting=True)
        assert event["duration_seconds"] > first  # until now
    finally:
        go_on.set()
        thread.join()
        loop.close()
    (over,) = blocks(lasting=False)
    assert over["started_at"] == event["started_at"]
    assert any("wait" in frame for sample in over["samples"] for frame in sample["stack"])


def test_a_clock_that_is_set_changes_no_duration(url, monkeypatch):
    """A block lasts, and the machine's clock is set an hour back or ahead: the block has lasted as long as before."""
    clock = [1000.0]
    monkeypatch.setattr(recent, "monotonic", lambda: clock[0])
    recent.note(make(LoopBlocked, samples=()))
    clock[0] += 2.0
    wall = time.time
    for hours in (-1, 0, 1):
        monkeypatch.setattr(time, "time", lambda hours=hours: wall() + 3600 * hours)
        (event,) = report(url)["events"]
        assert (event["lasting"], event["duration_seconds"]) == (True, 2.5)


def test_everything_known_is_in_the_answer(url):
    """One of each kind, field by field."""
    stack = (FrameSummary("/srv/app.py", 8, "f", lookup_line=False),)
    culprit = {"culprit_function": "app.export", "culprit_filename": "/srv/app.py", "culprit_lineno": 9}
    recent.note(
        make(SlowCallback, task_name="Task-1", detail="from 10.0.0.7:80", cause="gc", culprit_seen=True, **culprit)
    )
    recent.note(make(SlowIteration, top=(("app.f", 0.4, 2), ("app.g", 0.1, 1))))
    recent.note(make(LoopUnblocked, samples=((0.1, stack), (0.2, ()))))
    block, iteration, callback = report(url)["events"]
    assert callback == {
        "event": "slow_callback",
        "loop": "main",
        "kind": "callback",
        "name": "app.f",
        "file": "/srv/app.py:7",
        "duration_seconds": 0.5,
        "schedule_delay_seconds": 0.25,
        "started_at": "2023-11-14T22:13:20.500Z",
        "task": "Task-1",
        "detail": "from 10.0.0.7:80",
        "cause": "gc",
        "lasting": False,
        "culprit": "app.export",
        "culprit_file": "/srv/app.py:9",
        "http_route": None,
        "culprit_seen": True,
        "samples": [],
        "samples_left_out": 0,
        "top": [],
    }
    assert iteration["event"] == "slow_iteration"
    assert iteration["top"] == [
        {"name": "app.f", "seconds": 0.4, "calls": 2},
        {"name": "app.g", "seconds": 0.1, "calls": 1},
    ]
    assert block["event"] == "loop_blocked"
    assert block["samples"] == [
        {"after_seconds": 0.1, "stack": ["/srv/app.py:8 in f"], "left_out": 0},
        {"after_seconds": 0.2, "stack": [], "left_out": 0},
    ]


@pytest.mark.parametrize(
    ("query", "accept", "html"),
    [
        ("", None, False),
        ("", "*/*", False),
        ("", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("", "application/json", False),
        ("", "application/json, text/html;q=0.5", False),
        ("", "text/html;q=0, */*", False),
        ("", "text/html;q=nonsense", False),
        ("?format=json", "text/html", False),
        ("?format=html", "application/json", True),
        ("?a=b&format=html", None, True),
    ],
)
@pytest.mark.parametrize("path", ["/slow", "/tasks"])
def test_programs_get_json_and_browsers_get_a_page(url, path, query, accept, html):
    """By what they accept, or by what they ask for."""
    headers, body = get(url + path + query, **({"Accept": accept} if accept else {}))
    assert headers["Content-Type"] == ("text/html; charset=utf-8" if html else "application/json")
    assert body.startswith("<!DOCTYPE html>" if html else '{"process"')


def test_a_format_that_is_not_known_is_refused(url):
    """With the ones that are."""
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        get(f"{url}/slow?format=xml")
    with caught.value as error:
        assert "format=json or format=html" in error.read().decode()


def test_the_page_shows_it_all_and_runs_nothing(url):
    """Hostile names are text like any other; the policy allows the page's own style and nothing else."""
    assert "Nothing has been slow so far" in get(f"{url}/slow?format=html")[1]
    stack = (FrameSummary(f"/srv/{HOSTILE}.py", 8, HOSTILE, lookup_line=False),)
    recent.note(make(SlowCallback, HOSTILE, task_name=HOSTILE, detail=HOSTILE))
    recent.note(make(SlowIteration, "f.<locals>.<lambda>", top=((HOSTILE, 0.5, 3),)))
    recent.note(make(LoopBlocked, samples=((0.1, stack),)))
    headers, body = get(f"{url}/slow?format=html")
    assert "<script" not in body
    assert "&lt;script&gt;alert(1)" in body
    assert "f.&lt;locals&gt;.&lt;lambda&gt;" in body
    assert not {"\x1b", "\u202e"} & set(body)
    assert body.count("<details>") == 2
    assert "and lasts" in body
    assert "default-src 'none'; style-src 'sha256-" in headers["Content-Security-Policy"]
    assert {e["name"] for e in report(url)["events"]} == {
        "<script>alert(1)</script>&\"'?[2J??",
        "f.<locals>.<lambda>",
        "app.f",
    }


def test_the_style_is_the_one_that_the_policy_allows(url):
    """By its hash: a browser would ignore any other."""
    import base64
    import hashlib

    headers, body = get(f"{url}/slow?format=html")
    style = body.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in headers["Content-Security-Policy"]


def test_the_answer_is_bounded_whatever_happened(url):
    """Deep recursion, endless names, thousands of samples, long ago: cut, counted, and sent."""
    deep = tuple(FrameSummary('"' * 5000, i, '"' * 5000, lookup_line=False) for i in range(900))
    for i in range(130):
        recent.note(make(SlowIteration, '"' * 100_000, top=(('"' * 100_000, 0.1, 1),) * 1000))
        samples = tuple((float(n), deep) for n in range(30))
        recent.note(make(LoopUnblocked, "\x00" * 100_000, samples=samples, detail='"' * i * 1000))
    for query in ("", "?format=html"):
        assert len(get(f"{url}/slow{query}")[1]) < MAX_BODY / 2
    found = report(url)
    assert found["older"] == 160
    assert len(found["events"]) == 100
    assert sum(len(sample["stack"]) for event in found["events"] for sample in event["samples"]) == 5000
    block = found["events"][0]
    assert block["samples_left_out"] == 10
    first = block["samples"][0]
    assert (len(first["stack"]), first["left_out"]) == (50, 850)
    assert ":899 in " in first["stack"][-1]  # the innermost ones are shown
    assert "850 outer frames left out" in get(f"{url}/slow?format=html")[1]


def test_moments_and_places_that_are_none_are_null(url):
    """A clock of a test's own, a callback written in C."""
    event = make(SlowCallback)
    for field, value in (("started_at", 1e300), ("filename", ""), ("lineno", 0)):
        object.__setattr__(event, field, value)
    recent.note(event)
    (shown,) = report(url)["events"]
    assert (shown["started_at"], shown["file"]) == (None, None)
    assert "app.f" in get(f"{url}/slow?format=html")[1]
