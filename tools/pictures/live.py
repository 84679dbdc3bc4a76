"""Run what the pictures show: two workers under load, and a Prometheus that scrapes them, all on loopback.

The load follows a story, so that the curves have a shape: an ordinary day, reports that queue, synchronous code.
"""

import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import trustme
from mapping import Window

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
SCRAPE = 1
"""Seconds from one scrape to the next, so that minutes look like hours."""
# Route, requests a second, begin and end as parts of the whole time, workers (2 has more to do).
STORY: tuple[tuple[str, float, float, float, tuple[int, ...]], ...] = (
    ("/wait?seconds=0.1", 12.0, 0.0, 1.0, (1, 2)),
    ("/wait?seconds=1.5", 4.0, 0.0, 1.0, (1, 2)),
    ("/compute", 2.0, 0.0, 1.0, (1, 2)),
    ("/compute", 6.0, 0.3, 0.6, (2,)),
    ("/report?seconds=0.15", 6.0, 0.0, 1.0, (1, 2)),
    ("/report?seconds=0.4", 9.0, 0.42, 0.58, (2,)),
    ("/block?seconds=0.25", 0.25, 0.2, 0.45, (1, 2)),
    ("/block?seconds=0.4", 0.5, 0.72, 1.0, (2,)),
    ("/encrypt?seconds=0.3", 0.5, 0.66, 1.0, (2,)),
    ("/note", 0.2, 0.1, 1.0, (1, 2)),
    ("/native", 0.1, 0.5, 1.0, (1, 2)),
    ("/many", 0.2, 0.3, 1.0, (1,)),
    ("/fail", 0.2, 0.25, 1.0, (2,)),
    ("/reach", 0.5, 0.0, 1.0, (1, 2)),
    ("/child", 0.2, 0.0, 1.0, (1,)),
    ("/refuse", 0.1, 0.6, 0.8, (1,)),
)


class LiveError(Exception):
    """A program is missing, or did not start. The message says which."""


@contextlib.contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, and end it afterwards by SIGTERM, at which Prometheus saves its data."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """Debian's Prometheus, with its data in the folder, so that later queries can read the same data."""

    def __init__(self, folder: Path, targets: dict[str, int]) -> None:
        found = shutil.which("prometheus")
        if found is None:
            raise LiveError("prometheus is missing: install the package `prometheus`")
        self.folder, self.port = folder, free_port()
        workers = [{"targets": [f"{HOST}:{port}"], "labels": {"instance": name}} for name, port in targets.items()]
        config = {
            "global": {"scrape_interval": f"{SCRAPE}s", "scrape_timeout": f"{SCRAPE}s"},
            "scrape_configs": [{"job_name": "shop", "static_configs": workers}],
        }
        (folder / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
        self.command = [
            found, f"--config.file={folder}/prometheus.json", f"--storage.tsdb.path={folder}/prometheus",
            f"--web.listen-address={HOST}:{self.port}", "--storage.tsdb.retention.time=10y",
        ]  # fmt: skip

    @contextlib.contextmanager
    def running(self) -> Iterator["Prometheus"]:
        """Run it; it is ready for queries."""
        with running(self.command, self.folder / "prometheus.log") as process:
            wait(f"http://{HOST}:{self.port}/-/ready", process, self.folder / "prometheus.log")
            yield self

    def ask(self, query: str, window: Window, instant: bool) -> list[dict[str, Any]]:
        """Return the answer to a query, over the window or at its end."""
        if instant:
            path, times = "query", {"time": window.end}
        else:
            path, times = "query_range", {"start": window.start, "end": window.end, "step": window.step}
        url = f"http://{HOST}:{self.port}/api/v1/{path}?" + urllib.parse.urlencode({"query": query, **times})
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise LiveError(f"Prometheus refuses {query!r}: {error.read().decode()}") from None


def wait(url: str, process: "subprocess.Popen[bytes]", log: Path, limit: float = 60.0) -> None:
    """Wait until `url` answers. Raise LiveError after `limit` seconds, or if the process ends."""
    end = time.monotonic() + limit
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise LiveError(f"{url} did not answer within {limit:.0f} s; {log} says:\n{log.read_text()[-2000:]}")


def collect(folder: Path, seconds: float) -> tuple[int, int]:
    """Run the workers, the load and Prometheus for so many seconds. The scraped data stay in `folder`.

    Return when the load began and ended, in seconds since the epoch.
    """
    ports = {name: (free_port(), free_port()) for name in ("worker-1", "worker-2")}
    command = Path(sys.executable).with_name("obsloop")
    if not command.exists():
        raise LiveError(f"{command} does not exist. Run `make pictures`, which installs what is needed.")
    with contextlib.ExitStack() as stack:
        for name, (port, metrics) in ports.items():
            words = [str(command), "run", "--address", f"{HOST}:{metrics}", "uvicorn", "program:app"]
            words += ["--port", str(port), "--no-access-log"]
            log = folder / f"{name}.log"
            process = stack.enter_context(running(words, log, cwd=HERE, env={**os.environ, "OBSLOOP_NAME": "main"}))
            wait(f"http://{HOST}:{port}/wait?seconds=0", process, log)
        targets = {name: metrics for name, (_, metrics) in ports.items()}
        stack.enter_context(Prometheus(folder, targets).running())
        begun = time.time()
        asyncio.run(load([port for port, _ in ports.values()], seconds))
        return int(begun), int(begun + seconds)


async def load(ports: list[int], seconds: float) -> None:
    """Play the story on the workers, with a TLS server that they connect to, and a client that reads slowly."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    encrypted = await asyncio.start_server(lambda reader, writer: None, HOST, 0, ssl=context)
    reach = f"tls_port={encrypted.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(timeout=60.0, limits=httpx.Limits(max_connections=None)) as client:
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                begun = time.monotonic()
                for number, port in enumerate(ports, start=1):
                    group.create_task(slow_reader(port))
                    for route, rate, since, until, workers in STORY:
                        if number in workers:
                            address = f"http://{HOST}:{port}{route}"
                            if route == "/reach":
                                address += f"?port={ports[number % len(ports)]}&{reach}"
                            span = (begun + since * seconds, begun + until * seconds)
                            group.create_task(ask(client, address, rate, span))
        except TimeoutError:
            pass  # the time is over
    encrypted.close()


async def ask(client: httpx.AsyncClient, address: str, rate: float, span: tuple[float, float]) -> None:
    """Request `address` at this rate, answered or not, at random intervals, a little more and less in waves."""
    chance = random.Random(address)
    await asyncio.sleep(max(0.0, span[0] - time.monotonic()))
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic()) < span[1]:
            group.create_task(answer(client, address))
            wave = 1 + 0.35 * math.sin(now / 23) + 0.15 * math.sin(now / 7)
            await asyncio.sleep(chance.expovariate(rate * wave))


async def answer(client: httpx.AsyncClient, address: str) -> None:
    """Send one request. It may fail if the worker is very busy."""
    with contextlib.suppress(httpx.TransportError):
        await client.get(address)


async def slow_reader(port: int) -> None:
    """Download, reading a little at a time: the worker's transport is paused meanwhile."""
    while True:
        await asyncio.sleep(20)
        reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 14)
        writer.write(b"GET /download HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        while await reader.read(1 << 16):
            await asyncio.sleep(0.05)
        writer.close()
