"""A real request: uvicorn + FastAPI under `wrk`, CPU of the server process per request, on each loop in turn.

python -m tests.bench.http

Needs `wrk`. Loopback only. User and system time of the server are read from /proc before and after each burst.
"""

import asyncio
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.bench.sides import HAS_UVLOOP, OURS, ROOT, cores, environ, headline, write

SECONDS = 3
ROUNDS = 5
SIDES = {"stock": ("pure", "asyncio")}
SIDES |= {core: (core, OURS) for core in cores()}
SIDES |= {"uvloop": ("pure", "uvloop")} if HAS_UVLOOP else {}
PROTOCOLS = [name for name in ("h11", "httptools") if find_spec(name) is not None]


def app() -> Any:
    """The application: one route that answers with JSON, and one that says which loop it runs on."""
    from fastapi import FastAPI

    application = FastAPI()

    @application.get("/")
    async def hello(name: str = "world") -> dict[str, str]:
        return {"hello": name}

    @application.get("/loop")
    async def loop() -> str:
        running = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        return sys.modules["obsloop"].core if running == "obsloop" else running

    return application


def cpu_seconds(pid: int) -> float:
    """User and system time of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve(side: str, protocol: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server that answers, on the loop it should be on."""
    core, loop = SIDES[side]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "tests.bench.http:app", "--factory", "--port", str(port), "--loop", loop,
         "--http", protocol, "--log-level", "error", "--no-access-log", "--lifespan", "off", "--ws", "none"],
        cwd=ROOT, env=environ(core),
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url + "loop", timeout=5) as answer:
                runs_on = answer.read().decode().strip('"')
            break
        except OSError:
            if time.monotonic() > deadline or server.poll() is not None:
                server.kill()
                raise
            time.sleep(0.05)
    expected = "asyncio" if side == "stock" else side
    if runs_on != expected:
        server.kill()
        raise SystemExit(f"the server should run on {expected}, and runs on {runs_on}")
    return server, url


def burst(url: str, seconds: float) -> int:
    """How many requests were answered; none may fail."""
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", url]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"requests failed:\n{out}")
    found = re.search(r"(\d+) requests in", out)
    assert found is not None
    return int(found[1])


def measure(side: str, protocol: str) -> float:
    """Microseconds of the server's CPU per request, in one burst after a short one to warm up."""
    server, url = serve(side, protocol)
    try:
        burst(url, 1)
        before = cpu_seconds(server.pid)
        answered = burst(url, SECONDS)
        return (cpu_seconds(server.pid) - before) / answered * 1e6
    finally:
        server.terminate()
        server.wait(30)


def main(rounds: int = ROUNDS) -> int:
    if shutil.which("wrk") is None or find_spec("fastapi") is None or find_spec("uvicorn") is None:
        print("\nA real request: wrk (a system package), uvicorn or fastapi is missing; not measured.")
        return 0
    headline(f"uvicorn + FastAPI under wrk, server CPU per request, medians of {rounds} interleaved rounds")
    print(f"{'http':12}" + "".join(f"{side:>20}" for side in SIDES))
    figures: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        found: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                found[side].append(measure(side, protocol))
        row = figures[protocol] = {}
        for side, times in found.items():
            ratios = [time / stock for time, stock in zip(times, found["stock"], strict=True)]
            row[side] = {"us": statistics.median(times), "ratio": statistics.median(ratios)}
        print(f"{protocol:12}" + "".join(f"{r['us']:12.1f} ({r['ratio']:4.2f})" for r in row.values()), flush=True)
    write("http", {"rounds": rounds, "seconds": SECONDS, "microseconds": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
