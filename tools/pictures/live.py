"""What is real in the pictures: two workers under load, and a Prometheus that scrapes them, all on loopback.

The load has a story, so that the curves have a shape: an ordinary day, reports that queue, somebody's synchronous code.
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
"""Seconds from one scrape to the next: minutes here are to look like hours."""
# How often each route is asked for in a second, from and to which part of the time, of which worker (2 has more to do).
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
    """What is needed is missing, or did not start; the message says what."""


@contextlib.contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards; Prometheus writes down what it has when it is asked to end."""
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
    """One that nobody has."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """Debian's, with its data in the folder: the same data can be asked again later."""

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
        """Ready to be asked."""
        with running(self.command, self.folder / "prometheus.log") as process:
            wait(f"http://{HOST}:{self.port}/-/ready", process, self.folder / "prometheus.log")
            yield self

    def ask(self, query: str, window: Window, instant: bool) -> list[dict[str, Any]]:
        """Its answer, over the window or at its end."""
        if instant:
            path, times = "query", {"time": window.end}
        else:
            path, times = "query_range", {"start": window.start, "end": window.end, "step": window.step}
        url = f"http://{HOST}:{self.port}/api/v1/{path}?" + urllib.parse.urlencode({"query": query, **times})
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise LiveError(f"Prometheus does not take {query!r}: {error.read().decode()}") from None


def wait(url: str, process: "subprocess.Popen[bytes]", log: Path, limit: float = 60.0) -> None:
    """Until `url` answers."""
    end = time.monotonic() + limit
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise LiveError(f"{url} did not answer within {limit:.0f} s; {log} says:\n{log.read_text()[-2000:]}")


def collect(folder: Path, seconds: float) -> None:
    """Run the workers, the load and Prometheus for so long; what it scraped stays in `folder`."""
    ports = {name: (free_port(), free_port()) for name in ("worker-1", "worker-2")}
    command = Path(sys.executable).with_name("obsloop")
    if not command.exists():
        raise LiveError(f"{command} is not there; run `make pictures`, which installs what is needed")
    with contextlib.ExitStack() as stack:
        for name, (port, metrics) in ports.items():
            words = [str(command), "run", "--address", f"{HOST}:{metrics}", "uvicorn", "program:app"]
            words += ["--port", str(port), "--no-access-log"]
            log = folder / f"{name}.log"
            process = stack.enter_context(running(words, log, cwd=HERE, env={**os.environ, "OBSLOOP_NAME": "main"}))
            wait(f"http://{HOST}:{port}/wait?seconds=0", process, log)
        targets = {name: metrics for name, (_, metrics) in ports.items()}
        stack.enter_context(Prometheus(folder, targets).running())
        asyncio.run(load([port for port, _ in ports.values()], seconds))


async def load(ports: list[int], seconds: float) -> None:
    """The story, asked of the workers; a server that speaks TLS, for them to connect to; a client that reads slowly."""
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
    """Ask for `address` so often, answered or not, in some disorder, and a little more or less in waves."""
    chance = random.Random(address)
    await asyncio.sleep(max(0.0, span[0] - time.monotonic()))
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic()) < span[1]:
            group.create_task(answer(client, address))
            wave = 1 + 0.35 * math.sin(now / 23) + 0.15 * math.sin(now / 7)
            await asyncio.sleep(chance.expovariate(rate * wave))


async def answer(client: httpx.AsyncClient, address: str) -> None:
    """One request; a worker that is very busy may let it down."""
    with contextlib.suppress(httpx.TransportError):
        await client.get(address)


async def slow_reader(port: int) -> None:
    """Downloads, and reads a little at a time: the worker's transport is paused meanwhile."""
    while True:
        await asyncio.sleep(20)
        reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 14)
        writer.write(b"GET /download HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        while await reader.read(1 << 16):
            await asyncio.sleep(0.05)
        writer.close()
