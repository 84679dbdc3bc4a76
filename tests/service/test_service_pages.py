"""The pages of a service that blocks: as text, as JSON, and in a real browser."""

import asyncio
import json
import re
import threading
import time
import urllib.request

import pytest

import obsloop
from obsloop.blocking import recent, totals
from obsloop.service import history, source, text
from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_on
from obsloop.service.messages import Request
from obsloop.service.overview import overview
from obsloop.service.routes import ROUTES, Options
from obsloop.service.server import Server
from obsloop.tasks.lints import findings
from tests.parts import needed
from tests.service.chromium import Chromium
from tests.support import LIMIT, forget_everything

HOSTILE = "<script>alert(1)</script>"


def export():
    time.sleep(0.3)  # this line blocks


def report():
    time.sleep(0.2)


async def blocker(stop):
    while not stop.is_set():
        export()
        await asyncio.sleep(0.05)
        report()
        await asyncio.sleep(0.3)


@pytest.fixture(scope="module")
def url():
    """A service, with a loop that two lines of this file block again and again, and a task with a hostile name."""
    for forget in (forget_everything, totals.forked, history.forked, recent.forked, findings.forked):
        forget()  # tests before this one have left loops, culprits and lints
    listener = listen_on("127.0.0.1", 0)
    Server([Listener(listener, ROUTES)], Options(1.0)).start()
    stop = threading.Event()

    async def main():
        waiting = asyncio.create_task(asyncio.Event().wait(), name=HOSTILE)
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
        await asyncio.create_task(blocker(stop))
        waiting.cancel()

    thread = threading.Thread(target=lambda: obsloop.run(main(), settings=obsloop.Settings(name="shop")))
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    until(
        lambda: {"export", "report"} <= {e["function"].rpartition(".")[2] for e in get_json(address, "/")["culprits"]}
    )
    yield address
    stop.set()
    thread.join()
    totals.forked()
    history.forked()


def until(done):
    end = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def get(url, **headers):
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read().decode()


def get_json(url, path):
    return json.loads(get(f"{url}{path}?format=json")[1])


def line_of(function):
    return f"{function.__code__.co_filename.rpartition('/')[2]}:{function.__code__.co_firstlineno + 1}"


def test_the_overview_says_which_lines_block_and_how_much(url):
    """Two known lines, with their seconds, the cause and the source; and the share of the time that they take."""
    until(lambda: (get_json(url, "/")["loops"][0]["windows"]["1m"]["seconds"] or 0) > 3)
    found = get_json(url, "/")
    (loop,) = [loop for loop in found["loops"] if loop["loop"] == "shop"]
    assert loop["running"]
    share = loop["windows"]["1m"]["blocked_share"]
    assert 0.25 < share <= 1
    assert loop["windows"]["1m"]["utilization"] >= share - 0.1
    named = {entry["function"].rpartition(".")[2]: entry for entry in found["culprits"] if entry["loop"] == "shop"}
    first = named["export"]
    assert first["file"].endswith(line_of(export))
    assert first["lines"][0]["source"] == "time.sleep(0.3)  # this line blocks"
    assert first["windows"]["5m"]["seconds"] >= 0.3 * first["windows"]["5m"]["blocks"] > 0
    assert first["worst_seconds"] >= 0.3
    assert any(frame["source"] == "time.sleep(0.3)  # this line blocks" for frame in first["stack"])
    assert named["report"]["file"].endswith(line_of(report))


@pytest.mark.parametrize("path", ["/", "/slow", "/tasks"])
def test_a_terminal_gets_text_that_fits(url, path):
    """By curl's User-Agent, by Accept and by the query: no line is longer than 100 columns."""
    headers, body = get(url + path, User_Agent="curl/8.5.0", Accept="*/*")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert max(map(text.width, body.splitlines())) <= 100
    assert "blocker" in body or "export" in body
    for other in (get(f"{url}{path}?format=text"), get(url + path, Accept="text/plain")):
        assert other[0]["Content-Type"] == "text/plain; charset=utf-8"
    assert get(url + path, User_Agent="python-requests/2.32", Accept="*/*")[0]["Content-Type"] == "application/json"
    assert get(url + path, User_Agent="curl/8.5.0", Accept="application/json")[1].startswith('{"process"')


def test_tasks_are_grouped_by_the_line_where_they_wait(url):
    """The group names the program's own line, and the oldest task."""
    groups = get_json(url, "/tasks")["groups"]
    assert any(group["coroutine"].endswith("blocker") and group["tasks"] == 1 for group in groups)
    ages = [group["oldest_seconds"] for group in groups]
    assert ages == sorted(ages, reverse=True)


def test_slow_has_the_totals_of_an_hour_and_a_day(url):
    """Above the last events, with the stack to open."""
    page = get(f"{url}/slow", Accept="text/html")[1]
    assert page.index("<h2>Culprits") < page.index("<h2>Last slow callbacks")
    assert re.search(r"<details data-key=[^>]*export", page)
    (entry,) = [entry for entry in get_json(url, "/slow")["culprits"] if entry["function"].endswith(".export")]
    assert entry["windows"]["1h"] == entry["windows"]["24h"]


def test_an_address_without_slow_and_tasks_shows_nothing_of_them(url):
    """The overview has only the loops' numbers there."""
    request = Request("GET", "/", "format=json", {}, frozenset({"/", "/metrics"}))
    assert set(json.loads(overview(request).body)) == {"process", "taken_at", "loops", "loops_left_out"}
    page = overview(Request("GET", "/", "format=html", {}, frozenset({"/", "/metrics"}))).body.decode()
    assert "export" not in page
    assert 'href="/slow"' not in page


def test_a_block_that_lasts_is_on_top():
    """With its culprit, while the loop does not answer."""
    go_on = threading.Event()

    async def main():
        hold(go_on)

    def hold(event):
        event.wait(LIMIT)

    thread = threading.Thread(target=lambda: obsloop.run(main(), settings=obsloop.Settings(name="stuck")))
    thread.start()
    ask = Request("GET", "/", "format=json")
    try:
        until(lambda: any(b["loop"] == "stuck" for b in json.loads(overview(ask).body)["blocked_now"]))
        (block,) = [b for b in json.loads(overview(ask).body)["blocked_now"] if b["loop"] == "stuck"]
        shown = overview(Request("GET", "/", "format=text")).body.decode()
    finally:
        go_on.set()
        thread.join()
    assert block["function"].endswith("hold")
    assert any(frame["source"] == "event.wait(LIMIT)" for frame in block["stack"])
    assert "BLOCKED NOW" in shown


def test_source_lines_are_of_the_programs_own_files_only(tmp_path):
    """Not of a file that has changed since, is no Python, is a pipe, or is not there."""
    assert source.line(__file__, export.__code__.co_firstlineno) == "def export():"
    changed = tmp_path / "changed.py"
    changed.write_text("secret = 1\n")
    import os

    os.utime(changed, (time.time() + 60, time.time() + 60))
    assert source.line(str(changed), 1) == ""
    assert source.line("/etc/passwd", 1) == ""
    os.mkfifo(tmp_path / "pipe.py")
    assert source.line(str(tmp_path / "pipe.py"), 1) == ""
    assert source.line(str(tmp_path / "none.py"), 1) == ""


def test_tables_fit_and_keep_the_end_of_a_path():
    """Whatever is in them; wide characters take two columns."""
    rows = [("1", "/srv/" + "x" * 200 + "/shop.py:31", "界" * 80)]
    lines = text.table(("n", "where", "name"), rows, right="0", ends="1")
    assert max(map(text.width, lines)) <= 100
    assert "/shop.py:31" in lines[1]
    assert text.bars([0.0, None, 1.0], 0.5) == "▁ █"
    assert [text.seconds(s) for s in (0.0004, 0.267, 4.019, 135.2)] == ["0.4 ms", "267 ms", "4.02 s", "135 s"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A real Chromium."""
    browser = Chromium(needed("chromium", "chromium"), tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["/", "/slow", "/tasks"])
def test_the_pages_in_a_browser(url, browser, path, dark, width):
    """No error, nothing that the policy refuses, no scrolling sideways; the first culprit shows at once."""
    browser.show(url + path, width=width, height=800, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    back = browser.value("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")  # so the style is in force
    if path != "/tasks":
        bottom = browser.value("document.querySelector('.list details').getBoundingClientRect().bottom")
        assert 0 < bottom <= 800
    assert browser.value("document.querySelectorAll('main script').length") == 0
    assert browser.errors == []


def test_the_overview_refreshes_itself_and_keeps_what_is_open(url, browser):
    """The page's main part is another one after a while, with the opened stack still open."""
    browser.show(url, width=1280, height=800)
    browser.value("document.querySelector('.list details').open = true; document.querySelector('main').dataset.old = 1")
    browser.wait_until(lambda: browser.value("document.querySelector('main').dataset.old") is None)
    assert browser.value("document.querySelectorAll('.list details[open]').length") == 1
    assert browser.value("document.getElementById('state').textContent") == "live, every 2 s"
    assert browser.errors == []
