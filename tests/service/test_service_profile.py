"""/profile and /debug/pprof/ over real HTTP, with a loop that is blocked and tasks that wait."""

import asyncio
import gzip
import json
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
import warnings

import pytest

import obsloop
from obsloop.blocking import profile as blocked
from obsloop.metrics import self_metrics
from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_on
from obsloop.service.messages import Request
from obsloop.service.profile import respond
from obsloop.service.routes import ROUTES, Options
from obsloop.service.server import Server
from obsloop.tasks import waiting
from tests.parts import needed
from tests.service.chromium import Chromium
from tests.support import LIMIT, output

HOSTILE = '<script>alert(1)</script>"'


def export():
    time.sleep(0.25)


async def wait(event):
    await event.wait()


async def blocker(stop):
    while not stop.is_set():
        export()
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def url():
    """A service, and a loop that one line of this file blocks again and again."""
    for forget in (blocked.forked, waiting.forked):
        forget()
    listener = listen_on("127.0.0.1", 0)
    Server([Listener(listener, ROUTES)], Options(600.0)).start()
    stop = threading.Event()

    async def main():
        event = asyncio.Event()
        task = asyncio.create_task(wait(event), name=HOSTILE)
        await asyncio.create_task(blocker(stop))
        event.set()
        await task

    thread = threading.Thread(target=lambda: obsloop.run(main(), settings=obsloop.Settings(name="shop")))
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    end = time.monotonic() + LIMIT
    for what in ("blocked", "waiting"):
        while not json.loads(get(f"{address}/profile?what={what}&format=json"))["samples"]:
            assert time.monotonic() < end
            time.sleep(0.1)
    yield address
    stop.set()
    thread.join()
    for forget in (blocked.forked, waiting.forked):
        forget()


def get(url):
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        return answer.read()


def refused(url):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url)
    with caught.value as answer:
        return answer.code, answer.read().decode(), answer.headers


def test_each_format_names_the_line(url):
    """The same profile as data, as text, for three tools and as a page."""
    data = json.loads(get(f"{url}/profile?format=json"))
    assert data["what"] == "blocked"
    assert any(function.endswith(".export") and own for function, _, _, own in data["frames"])
    assert b"export" in get(f"{url}/profile?format=text")
    assert re.search(
        rb"blocker \(.*;.*export \(test_service_profile.py:\d+\) \d+\n", get(f"{url}/profile?format=collapsed")
    )
    assert json.loads(get(f"{url}/profile?format=speedscope"))["profiles"]
    assert b"export" in gzip.decompress(get(f"{url}/profile?format=pprof"))
    assert b'<svg class="flame"' in get(f"{url}/profile?format=html")


def test_what_is_not_accepted_is_said(url):
    """Unknown kinds, windows, formats and durations."""
    for query in ("what=x", "seconds=x", "seconds=-1", "seconds=100000", "seconds=nan", "format=x"):
        assert refused(f"{url}/profile?{query}")[0] == 400
    for query in ("seconds=0", "seconds=61", "seconds=nan", "seconds=x"):
        assert refused(f"{url}/debug/pprof/profile?{query}")[:2] == (
            400,
            "Unknown duration: expected seconds=N, at least 0.1 and at most 60.\n",
        )


def test_waiting_names_the_line_where_tasks_wait(url):
    """And a task's name harms no page."""
    lines = get(f"{url}/profile?what=waiting&format=collapsed").decode()
    assert re.search(r"\.wait \(test_service_profile.py:\d+\) \d+\n", lines), lines
    page = get(f"{url}/profile?what=waiting&format=html").decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_sampling_finds_the_busy_line_and_blocks_nobody_else(url):
    """While one client waits for its samples, pages and scrapes are answered, and a second such client is refused."""
    found = []
    thread = threading.Thread(target=lambda: found.append(get(f"{url}/debug/pprof/profile?seconds=3&format=json")))
    thread.start()
    time.sleep(0.5)
    code, text, headers = refused(f"{url}/debug/pprof/profile?seconds=3")
    assert (code, headers["Retry-After"]) == (503, "30")
    assert "Only one is at a time" in text
    for path in ("/", "/profile", "/healthz", "/debug/pprof/"):
        get(url + path)
    assert thread.is_alive()
    thread.join()
    profile = json.loads(found[0])
    names = {frame[0].rpartition(".")[2] for frame in profile["frames"]}
    assert {"blocker", "export"} <= names
    busy = sum(sample["ns"] for sample in profile["samples"]) / 1e9
    assert 1.5 < busy < 3.1  # it sleeps in 5 of 6 parts of the time
    assert self_metrics.times_ns()["profile"] > 0


def test_a_client_that_hangs_up_ends_the_sampling(url, capfd):
    """The next client need not wait for a minute that is for nothing, and nothing is said of it."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while _answers(f"{url}/debug/pprof/profile?seconds=0.1"):
            time.sleep(0.01)  # until its samples are taken, others are
    end = time.monotonic() + 30
    while not _answers(f"{url}/debug/pprof/profile?seconds=0.1"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert capfd.readouterr().err == ""


def _answers(address) -> bool:
    try:
        return bool(get(address))
    except urllib.error.HTTPError as answer:
        answer.close()
        return False


def test_a_fork_does_not_wait_for_the_samples(url):
    """The thread lets go of its lock while it sleeps."""
    thread = threading.Thread(target=lambda: get(f"{url}/debug/pprof/profile?seconds=5"))
    thread.start()
    time.sleep(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from CPython 3.12 on, of a fork beside threads
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert thread.is_alive()
    thread.join()


def test_a_setting_switches_it_off():
    """With `OBSLOOP_PPROF=0` the loop's thread is never sampled, and the client is refused; without, it is."""
    source = """
import asyncio, time, obsloop
from obsloop.service import sampling
from obsloop.service.messages import Request
from obsloop.service.pprof import running

async def main():
    request = Request("GET", "/", "seconds=0.1")
    asked = lambda: (len(sampling.sample(0.5)["samples"]), running(request))
    task = asyncio.create_task(asyncio.to_thread(asked))
    while not task.done():
        time.sleep(0.05)
        await asyncio.sleep(0.001)
    n, response = task.result()
    print(n > 0, response.status)

obsloop.run(main())
"""
    assert output(source, OBSLOOP_PPROF="0").split() == ["False", "403"]
    assert output(source).split() == ["True", "200"]


def test_a_profile_of_others_is_shown_without_harm():
    """The page is made from the data alone, whatever names it has."""
    profile = {
        "what": "blocked",
        "began": 0.0,
        "seconds": 60.0,
        "dropped": 3,
        "frames": [[HOSTILE, HOSTILE, 1, True], ["(not sampled)", "", 0, False]],
        "samples": [{"stack": [0, 1], "labels": {"cause": HOSTILE, "worker": "2"}, "ns": 5, "count": 1}],
    }
    for query in ("format=html", "format=text", "format=json", "format=collapsed", "format=speedscope", "format=pprof"):
        response = respond(Request("GET", "/profile", query), profile)
        assert response.status == 200
        if query == "format=html":
            assert b"<script" not in response.body


@pytest.mark.parametrize("dark", [False, True])
def test_a_click_zooms_in(url, tmp_path, dark):
    """In a real browser: frames are links that the keyboard reaches, and the policy refuses nothing."""
    browser = Chromium(needed("chromium", "chromium"), tmp_path)
    try:
        browser.show(f"{url}/profile", width=400, height=800, dark=dark)
        n = browser.value("document.querySelectorAll('.flame a').length")
        assert n >= 3
        assert browser.value("document.documentElement.scrollWidth") <= 400
        link = browser.value("document.querySelectorAll('.flame a')[2].getAttribute('href')")
        browser.show(url + link, width=400, height=800, dark=dark)
        widths = browser.value("[...document.querySelectorAll('.flame a>svg')].map(e=>e.getAttribute('width')).join()")
        assert widths.split(",")[:3] == ["100.000%"] * 3
        assert browser.value("document.querySelectorAll('rect.past').length") >= 1  # its callers stay above it
        assert browser.errors == []
    finally:
        browser.close()
