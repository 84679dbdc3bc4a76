"""How many series a typical worker has at each level: FastAPI on uvicorn, under load, seen from outside."""

import concurrent.futures
import re
import socket
import sys
import time

import pytest

import obsloop
from tests.cli.programs import SECONDS, Program, get

APP = """
import asyncio, time
from fastapi import FastAPI, Request

app = FastAPI()

@app.get("/wait")
async def wait():
    await asyncio.sleep(0.01)
    return {"waited": True}

@app.get("/thread")
def thread():
    time.sleep(0.01)
    return {"thread": True}

@app.get("/upstream")
async def upstream(request: Request):
    reader, writer = await asyncio.open_connection("localhost", request.url.port)
    writer.write(b"GET /wait HTTP/1.1\\r\\nHost: here\\r\\nConnection: close\\r\\n\\r\\n")
    size = len(await reader.read())
    writer.close()
    return {"bytes": size}

@app.get("/block")
async def block():
    time.sleep(0.3)
    return {"blocked": True}
"""
MOST = {"basic": 150, "full": 400}
MORE = {"basic": 20, "full": 30}
"""Series that each further worker of a group adds: those that have the label `worker`."""
PATHS = ("/wait", "/thread", "/upstream", "/block", "/wait", "/missing")

pytestmark = [pytest.mark.clients, pytest.mark.once]


def samples(text: str) -> list[str]:
    """The samples of a scrape, one line each."""
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("level", MOST)
def test_a_fastapi_worker_has_few_series(tmp_path, level):
    """After each route has answered many requests, and one has blocked the loop."""
    (tmp_path / "app.py").write_text(APP)
    words = ("--address", "0", "-m", "uvicorn", "app:app", "--port", "0")
    with Program(*words, cwd=tmp_path, OBSLOOP_METRICS=level) as program:
        metrics = program.url() + "/metrics"
        web = program.line("Uvicorn running on (http://[^ ]+)")[1]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda path: get(web + path), PATHS * 10))
        assert {status for status, _ in answers} == {200, 404}
        lines = samples(get(metrics)[1])
    assert len(lines) <= MOST[level], "\n".join(lines)
    assert len(lines) > MOST[level] / 3  # the program has really done something
    print(level, len(lines), file=sys.stderr)
    # Of the catalogue, nothing is exported that has not happened, except what alerts need.
    families = {re.match("[a-z0-9_]+", line)[0] for line in lines}
    assert any(name.startswith("asyncio_eventloop_blocked_time") for name in families)
    assert not any(name.startswith(("asyncio_subprocess_duration", "asyncio_signal")) for name in families)
    metrics = obsloop.METRICS if level == "full" else [m for m in obsloop.METRICS if m.level == "basic"]
    prefixes = tuple(metric.name.replace(".", "_").removesuffix("_count") for metric in metrics)
    assert [name for name in families if not name.startswith(prefixes)] == []


@pytest.mark.parametrize("level", MOST)
def test_four_workers_have_hardly_more_series_than_one(tmp_path, level):
    """One scrape has all four. Only the metrics of which each worker has its own add series."""
    (tmp_path / "app.py").write_text(APP)
    words = ("--address", f"127.0.0.1:{free_port()}", "-m", "uvicorn", "app:app", "--port", "0", "--workers", "4")
    with Program(*words, cwd=tmp_path, OBSLOOP_METRICS=level) as program:
        web = program.line("Uvicorn running on (http://[^ ]+)")[1]  # by the parent, before a worker serves
        metrics = program.url() + "/metrics"
        program.line("Application startup complete")  # only then does a process listen
        end = time.monotonic() + SECONDS
        while (found := workers(lines := samples(get(metrics)[1]))) != {"0", "1", "2", "3"}:
            assert time.monotonic() < end, f"only the workers {found} after {SECONDS} s"
            time.sleep(0.1)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda path: get(web + path), PATHS * 40))
        assert {status for status, _ in answers} == {200, 404}
        lines = samples(get(metrics)[1])
    assert workers(lines) == {"0", "1", "2", "3"}
    print(level, 4, len(lines), file=sys.stderr)
    of_one = [line for line in lines if 'worker="1"' in line]
    assert 10 < len(of_one) <= MORE[level], "\n".join(of_one)
    assert MOST[level] / 3 < len(lines) <= MOST[level] + 3 * MORE[level], "\n".join(lines)


def workers(lines: list[str]) -> set[str]:
    """The workers that have series."""
    return {found[1] for line in lines if (found := re.search('worker="(\\d+)"', line))}


def free_port() -> int:
    """A port of loopback that no process listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]
