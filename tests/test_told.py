"""A team's question, answered: which of our lines blocks the loop, how much, and what do clients feel?

A service with five routes under uvicorn. Two of them block: one in a line of its own, one in a library's call. The
service writes down what it really put in. Metrics and log must say the same.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.exporters.traces import until
from tests.test_readme import SECONDS, free_port

pytestmark = [pytest.mark.once, pytest.mark.clients]

SHOP = """
import asyncio, time
from fastapi import FastAPI
from slowdb import query

app = FastAPI()
put_in = {"export": [], "report": []}


class timed:
    def __init__(self, name):
        self.name = name
    def __enter__(self):
        self.began = time.monotonic()
    def __exit__(self, *_):
        put_in[self.name].append(time.monotonic() - self.began)


@app.get("/")
async def home():
    return "hello"


@app.get("/wait")
async def wait():
    await asyncio.sleep(0.05)
    return "waited"


@app.get("/export")
async def export():
    with timed("export"):
        time.sleep(0.7)  # the line of /export
    return "exported"


@app.get("/report")
async def report():
    with timed("report"):
        query("select", 0.6)  # the line of /report
    return "reported"


@app.get("/put_in")
async def known():
    return put_in
"""
SLOWDB = """
import time


def query(text, seconds):
    return _receive(seconds)


def _receive(seconds):
    time.sleep(seconds)
"""
DOORS = {
    "obsloop run": ["obsloop", "run", "uvicorn", "shop:app"],
    "--loop": ["uvicorn", "shop:app", "--loop", "obsloop:new_event_loop"],
}


def line_of(route: str) -> int:
    """The line of the shop that blocks."""
    return next(n for n, line in enumerate(SHOP.splitlines(), 1) if line.endswith(f"# the line of /{route}"))


@contextlib.contextmanager
def service(folder: Path, command: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """The shop's URL, that of the figures, and the lines on stderr so far."""
    (folder / "shop.py").write_text(SHOP)
    library = folder / "site-packages" / "slowdb.py"
    library.parent.mkdir()
    library.write_text(SLOWDB)
    app, figures = free_port(), free_port()
    bin_folder = os.path.dirname(sys.executable)
    kept = {key: value for key, value in os.environ.items() if key == "OBSLOOP_PURE" or not key.startswith("OBSLOOP_")}
    environ = kept | {
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "PYTHONPATH": str(library.parent),
        "OBSLOOP_ADDRESS": f"127.0.0.1:{figures}",
        "OBSLOOP_METRICS": "basic",
        "UVICORN_PORT": str(app),
        "UVICORN_LOG_LEVEL": "info",
    }
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        reader = threading.Thread(target=lambda stream: lines.extend(iter(stream.readline, "")), args=(process.stderr,))
        reader.start()
        try:
            until(lambda: any("Uvicorn running" in line for line in lines), "uvicorn runs")
            yield f"http://127.0.0.1:{app}", f"http://127.0.0.1:{figures}", lines
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            reader.join(SECONDS)


def get(url: str, **headers: str) -> str:
    """What a client gets."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
        return answer.read().decode()


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values of the samples with this name."""
    found: list[Any] = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [(sample.labels, sample.value) for sample in found if sample.name == name]


@pytest.mark.parametrize("door", DOORS)
def test_the_lines_that_block_are_named_with_their_seconds(tmp_path, door):
    """In /metrics within 5 % of what was put in; in the log one line per culprit."""
    with service(tmp_path, DOORS[door]) as (app, figures, lines):
        for _ in range(3):
            for path in ("/", "/wait", "/export", "/", "/report"):
                get(app + path)
        put_in = {f"shop.{route}": sum(spent) for route, spent in json.loads(get(f"{app}/put_in")).items()}
        scraped = get(f"{figures}/metrics")
        blocked: dict[str, float] = {}
        for labels, seconds in samples(scraped, "asyncio_eventloop_block_time_seconds_total"):
            name = labels["code_function_name"]
            blocked[name] = blocked.get(name, 0.0) + seconds
        slow = {labels["code_function_name"]: n for labels, n in
                samples(scraped, "asyncio_eventloop_callback_slow_total")}  # fmt: skip
        for name, seconds in put_in.items():
            assert blocked[name] == pytest.approx(seconds, rel=0.05)
            assert slow[name] == 3
        until(lambda: all(any(f"by {name} (" in line for line in lines) for name in put_in), "both are logged")
    for route in ("export", "report"):
        # One line per culprit in ten seconds: on a slow machine, the three requests of a route take longer.
        logged = [line for line in lines if "event loop blocked" in line and f"by shop.{route} (" in line]
        assert 1 <= len(logged) <= 3
        assert re.match(rf"event loop blocked \d\.\d\d s by shop\.{route} \(shop\.py:{line_of(route)}\), ", logged[0])
    assert any("in slowdb.query" in line for line in lines if "by shop.report" in line)
