"""A server that runs: its clients, its metrics as Prometheus has them, its health and its end."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.doors.servers import Server

APPS = Path(__file__).with_name("apps")
LIMIT = 60.0
"""How long to wait for what must happen. Nothing is asserted about it."""
TIME = "asyncio_eventloop_block_time_seconds_total"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def until(look: Callable[[], object], what: str, limit: float = LIMIT):
    """Return the first true answer."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {limit:.0f} s: {what}")


def get(url: str) -> tuple[int, str]:
    """Return status and body; 0 and what went wrong if there is no answer."""
    try:
        with OPENER.open(url, timeout=LIMIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (OSError, ValueError) as error:
        return 0, repr(error)


class Running:
    """One server in a folder of its own."""

    def __init__(self, name: str, server: Server, folder: Path, port: int, metrics: int, redis: int) -> None:
        self.name, self.server, self.folder, self.port, self.metrics = name, server, folder, port, metrics
        shutil.copytree(APPS, folder)
        self.address = f"127.0.0.1:{metrics}"
        self.queue = f"redis://127.0.0.1:{redis}/{redis_database(name)}"

    def start(self, *before: str) -> None:
        """Start it. `before` are the words before its own command."""
        words = f"{self.server.command} {self.server.only_here}".replace("PORT", str(self.port)).split()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OBSLOOP_") or k == "OBSLOOP_PURE"}
        environ = kept | {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
            "DOOR_FOLDER": str(self.folder), "DOOR_REDIS": self.queue, "OBSLOOP_UNHEALTHY_AFTER": "0.5",
            # A user's own program is on the path; of the test's environment nothing is.
            "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        self.log = self.folder / f"{'observed' if before else 'plain'}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*before, *words], cwd=self.folder, env=environ, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def ask(self, path: str) -> bool:
        """Let a client ask once. Return whether the server has taken it."""
        if self.server.speaks == "http":
            return get(f"http://127.0.0.1:{self.port}{path}")[0] == 200
        return _ASK[self.server.speaks](self, path)

    def ready(self, round_name: str) -> None:
        """Wait until it answers. A queue has no answer: then a turn of no length is the sign."""

        def answers() -> bool:
            assert self.process.poll() is None, f"{self.server.command} ended:\n{self.log.read_text()}"
            if self.server.speaks in ("http", "grpc"):
                return self.ask("/")
            return bool(self.ask(f"/one-{round_name}/0.001") and self.turns(f"one-{round_name}"))

        until(answers, f"{self.name} answers:\n{self.log.read_text()}")

    def turns(self, round_name: str) -> dict[int, float]:
        """Return the processes that had their turn in this round, and for how many seconds each was blocked."""
        notes = [path.read_text().split() for path in self.folder.glob(f"{round_name}*.turn")]
        return {int(note[0]): float(note[1]) for note in notes if note}

    def block_each(self, round_name: str, seconds: float, n: int) -> dict[int, float]:
        """Let clients ask side by side until `n` processes had their turn: one that is blocked accepts no more."""
        with self.clients(f"/{round_name}/{seconds}", n + 1):
            until(lambda: len(self.turns(round_name)) >= n, f"{self.name}: {n} workers had their turn in {round_name}")
        until(self.seconds, "all turns are over")
        return self.turns(round_name)

    def seconds(self) -> float:
        """Return the sum of all turns; 0 while one lasts."""
        notes = [path.read_text().split() for path in self.folder.glob("*.turn")]
        return sum(float(note[1]) for note in notes) if all(notes) else 0.0

    @contextlib.contextmanager
    def clients(self, path: str, n: int) -> Iterator[None]:
        """Let `n` clients ask again and again."""
        over = threading.Event()

        def client() -> None:
            while not over.is_set():
                self.ask(path)
                over.wait(0.05)

        threads = [threading.Thread(target=client) for _ in range(n)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def scrape(self) -> str:
        """Return a page of metrics; empty if there is none."""
        status, page = get(f"http://{self.address}/metrics")
        return page if status == 200 else ""

    def health(self) -> tuple[int, dict]:
        """Return status and report of /healthz."""
        status, body = get(f"http://{self.address}/healthz")
        return status, json.loads(body) if body.startswith("{") else {}

    def workers(self) -> dict[str, dict]:
        """Return the processes of the group, by their numbers."""
        return self.health()[1].get("workers", {})

    def processes(self) -> set[int]:
        """Return the ids of the group's processes."""
        return {each["process"] for each in self.health()[1].get("workers", {}).values()}

    def end(self) -> int:
        """Ask it to end, as a supervisor does. Return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        """End all of it, in any state."""
        if hasattr(self, "process"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(LIMIT)


def redis_database(name: str) -> int:
    """Return a number that no other server's queue has."""
    return {"celery-3": 1, "taskiq-3": 2}.get(name, 0)


def _grpc(running: Running, path: str) -> bool:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        try:
            channel.unary_unary("/Shop/Turn")(path.encode(), timeout=LIMIT)
        except grpc.RpcError:
            return False
    return True


def _celery(running: Running, path: str) -> bool:
    from celery import Celery

    with Celery("client", broker=running.queue) as client:
        client.send_task("turn", [path], ignore_result=True)
    return True


def _taskiq(running: Running, path: str) -> bool:
    import asyncio

    from taskiq.kicker import AsyncKicker
    from taskiq_redis import ListQueueBroker

    async def send() -> None:
        broker = ListQueueBroker(running.queue)
        await broker.startup()
        await AsyncKicker("turn", broker, {}).kiq(path)
        await broker.shutdown()

    asyncio.run(send())
    return True


_ASK = {"grpc": _grpc, "celery": _celery, "taskiq": _taskiq}
