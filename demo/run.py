"""Run the demo: start app.py under `obsloop run`, send it requests, print the loop's metrics and what blocks it.

    python demo/run.py [--seconds 10] [--port 8000] [--metrics-port 9464]

The table comes from /metrics, as any scraper gets it (table.py); the blocks come from /slow (blocks.py). This file
has the observed process, the load, and a clean end: after the time or by Ctrl-C (exit code 0), after an error (1).
"""

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import httpx
from blocks import Blocks
from table import HEADER, Reading, line, read, summary

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
#: Each phase adds a route to those before: the load's name, the route, seconds from one request to the next.
PHASES = (
    ("waiting", "/wait", 0.02),
    ("+ computing", "/compute", 0.04),
    ("+ blocking", "/block", 1.5),
)
#: Seconds after which the second and the third phase begin, if there is time enough.
BEGINS = (1.5, 3.0)
#: Seconds between two readings of /slow.
LOOK_EVERY = 0.15
#: Seconds that the application may take to start, and to stop.
START, STOP = 60.0, 10.0


class DemoError(Exception):
    """The demo cannot go on. The message says why."""


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--port", type=int, default=8000, help="the application's port (default 8000)")
    parser.add_argument("--metrics-port", type=int, default=9464, help="obsloop's port (default 9464)")
    options = parser.parse_args()
    try:
        asyncio.run(until_signal(demo(options.seconds, options.port, options.metrics_port)))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`. On Ctrl-C, `kill` or a closed terminal, let it clean up and end."""
    task = asyncio.ensure_future(work)
    signalled = asyncio.Event()

    def on_signal() -> None:
        signalled.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        await task
    except (asyncio.CancelledError, DemoError):
        # A terminal sends Ctrl-C to the application too. The requests that fail then are no error.
        if not signalled.is_set():
            raise


async def demo(seconds: float, port: int, metrics_port: int) -> None:
    """Start the application, send it requests, print its metrics, stop it."""
    async with application(port, metrics_port) as (app, metrics):
        print(f"\nOpen:          {metrics}/ while it runs, or /slow, /tasks, /metrics, /healthz")
        print(f"Block it:      curl '{app}/block?seconds=3'\n\n{HEADER}", flush=True)
        async with httpx.AsyncClient(base_url=app, timeout=60.0) as client:
            try:
                blocks = Blocks(await get_json(client, f"{metrics}/slow"))
                await load_and_print(client, metrics, blocks, seconds)
                print(f"\n{blocks.answer()}", flush=True)
            except ExceptionGroup as group:  # from the task groups below
                error = first_of(group)
                if isinstance(error, httpx.HTTPError):
                    error = DemoError(f"a request failed: {error!r}")
                raise error from None


def first_of(error: Exception) -> Exception:
    """Return the first error in a group of groups."""
    return first_of(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


async def load_and_print(client: httpx.AsyncClient, metrics: str, blocks: Blocks, seconds: float) -> None:
    """Request one more route in each phase. Print a line every second, each block as it ends, and a summary."""
    first = before = await scrape(client, metrics)
    begin = time.monotonic()
    ends = [*(min(1.0, seconds / 2 / BEGINS[-1]) * second for second in BEGINS), seconds]
    async with asyncio.TaskGroup() as group:
        load: list[asyncio.Task[None]] = []
        try:
            for (name, route, pause), end in zip(PHASES, ends, strict=True):
                load.append(group.create_task(ask(client, route, pause)))
                while time.monotonic() < begin + end:
                    await print_blocks(client, metrics, blocks, until=min(time.monotonic() + 1.0, begin + end))
                    now = await scrape(client, metrics)
                    print(line(time.monotonic() - begin, name, before, now), flush=True)
                    before = now
        finally:
            for task in load:
                task.cancel()
            print(f"\n{summary(first, before)}", flush=True)


async def ask(client: httpx.AsyncClient, route: str, pause: float) -> None:
    """Request `route` every `pause` seconds, answered or not: real clients do not wait for one another."""
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(answer(client, route))
            await asyncio.sleep(pause)


async def answer(client: httpx.AsyncClient, route: str) -> None:
    """Send one request."""
    (await client.get(route)).raise_for_status()


async def print_blocks(client: httpx.AsyncClient, metrics: str, blocks: Blocks, until: float) -> None:
    """Print each block that ends until the monotonic time `until`."""
    while True:
        for block in blocks.update(await get_json(client, f"{metrics}/slow")):
            print(f"  blocked {block.seconds:.2f} s by {block.where}", flush=True)
        if time.monotonic() >= until:
            return
        await asyncio.sleep(min(LOOK_EVERY, max(0.0, until - time.monotonic())))


async def scrape(client: httpx.AsyncClient, metrics: str) -> Reading:
    """Return the values of now."""
    response = await get(client, f"{metrics}/metrics")
    return read(response.text, time.monotonic())


async def get_json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return the JSON that a page of obsloop answers."""
    answer: dict[str, Any] = (await get(client, f"{url}?format=json")).json()
    return answer


async def get(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """Return what obsloop answers."""
    response = await client.get(url)
    if response.is_error:
        raise DemoError(f"{url} answers {response.status_code}: {response.text}")
    return response


@contextlib.asynccontextmanager
async def application(port: int, metrics_port: int) -> AsyncIterator[tuple[str, str]]:
    """Run the application under `obsloop run`; yield its URL and that of its metrics. Stop it afterwards."""
    # As a user would type it. With port 0, each of the two takes a free one.
    words = ["run", "--address", f"{HOST}:{free(metrics_port)}"]
    words += ["uvicorn", "app:app", "--port", str(free(port)), "--no-access-log"]
    print(f"$ cd {HERE.name} && obsloop {shlex.join(words)}", flush=True)
    # Beside this interpreter, since its environment may not be activated.
    command = Path(sys.executable).with_name("obsloop")
    if not command.exists():
        raise DemoError(f"{command} does not exist. Run `make demo`, which installs what the demo needs.")
    process = await asyncio.create_subprocess_exec(command, *words, cwd=HERE, stdout=PIPE, stderr=STDOUT)
    echo: asyncio.Task[None] | None = None
    try:
        urls = await asyncio.wait_for(started(process), START)
        echo = asyncio.create_task(echo_lines(process))
        yield urls
    except TimeoutError:
        raise DemoError(f"the application did not start within {START:.0f} s") from None
    finally:
        await stop(process)
        if echo is not None:
            echo.cancel()


async def started(process: Process) -> tuple[str, str]:
    """Return the two URLs, from the application's own output."""
    found: dict[str, str] = {}
    patterns = {"metrics": r"^obsloop: serving (http://\S+)/metrics", "app": r"Uvicorn running on (http://\S+)"}
    async for text in lines(process):
        print(f"  {text}", flush=True)
        for name, pattern in patterns.items():
            if match := re.search(pattern, text):
                found[name] = match[1]
        if len(found) == len(patterns):
            return found["app"], found["metrics"]
    raise DemoError("the application ended before it was ready. Its output is above.")


async def echo_lines(process: Process) -> None:
    """Print the application's later output. It prints nothing unless something is wrong."""
    async for text in lines(process):
        print(f"  {text}", flush=True)


async def lines(process: Process) -> AsyncIterator[str]:
    """Yield the application's output, line by line, without colours."""
    stream = process.stdout
    if stream is None:
        raise TypeError("a process without a pipe")
    async for data in stream:
        yield re.sub(r"\x1b\[[0-9;]*m", "", data.decode(errors="replace").rstrip())


async def stop(process: Process) -> None:
    """End the application as `kill` does; if it does not end, by force."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP)
    except (TimeoutError, asyncio.CancelledError):  # it hangs, or the user presses Ctrl-C again
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def free(port: int) -> int:
    """Return `port`, or 0 if another program has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like servers: closing connections do not count
        try:
            probe.bind((HOST, port))
        except OSError as error:
            print(f"Port {port} cannot be had ({os.strerror(error.errno or 0)}); a free one is taken.", flush=True)
            return 0
    return port


if __name__ == "__main__":
    sys.exit(main())
