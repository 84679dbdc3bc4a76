"""The story of one server: each worker is blocked, one is killed, all are replaced, and each is blocked again."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.doors.running import LIMIT, TIME, Running, until

BLOCK = 1.2
"""Seconds of each turn."""
SICK = 3.0


@dataclass
class Seen:
    """What the story saw, for the test to judge."""

    blocked: list[float] = field(default_factory=list)
    """Seconds that the applications blocked in each round."""
    counted: list[float] = field(default_factory=list)
    """Seconds by which Prometheus's sum grew."""
    counters: float = 0.0
    """How many counters Prometheus has."""
    resets: float = 0.0
    """How often Prometheus saw a counter go back."""
    scraped: int = 0
    """How many workers had their blocks in one scrape."""
    sick: list[list[int]] = field(default_factory=list)
    """The processes that each 503 of /healthz named while one was blocked."""
    sick_process: int = 0
    code: int = 0
    plain_code: int = 0
    lines: list[str] = field(default_factory=list)
    """obsloop's lines on stderr."""
    log: str = ""
    loops: set[str] = field(default_factory=set)
    """The names of all loops at the end."""
    processes: int = 0
    """How many processes had their turn, where workers end after some requests."""
    numbers: list[set[str]] = field(default_factory=list)
    """The workers' numbers, first and later."""


def count_all(seen: Seen, running: Running, value: Callable[[str], float]) -> None:
    """Wait until Prometheus has the turns since the last time, and note both sums."""
    of_blocks = f'{TIME}{{job="{running.name}",code_function_name="door.block"}}'
    total = until(running.seconds, "all turns are over") - sum(seen.blocked)
    before = sum(seen.counted)
    with contextlib.suppress(AssertionError):  # the test says it, with the numbers
        until(lambda: value(f"sum({of_blocks})") - before > 0.98 * total, f"{total} s are counted")
    seen.blocked.append(total)
    seen.counted.append(value(f"sum({of_blocks})") - before)


def count_resets(seen: Seen, running: Running, value: Callable[[str], float]) -> None:
    """Ask how many counters there are, and how often one went back."""
    counters = f'{{__name__=~"asyncio_.*_total|asyncio_.*_count",job="{running.name}"}}'
    seen.counters, seen.resets = value(f"count({counters})"), value(f"sum(resets({counters}[1h]))")


@contextlib.contextmanager
def cared_for(running: Running) -> Iterator[None]:
    """Add the server's log to an error, and leave no process behind."""
    try:
        yield
    except Exception as error:
        error.add_note(running.log.read_text())
        raise
    finally:
        running.kill()


def story(running: Running, value: Callable[[str], float]) -> Seen:
    """Let it happen. `value` asks Prometheus."""
    seen, server = Seen(), running.server

    def all_counted() -> None:
        count_all(seen, running, value)

    with cared_for(running):
        running.start("obsloop", "run", "--address", running.address)
        running.ready("first")
        rounds = [running.block_each("1", BLOCK, server.workers)]
        all_counted()
        seen.scraped = len({each["process"] for each in running.workers().values()} & rounds[0].keys())
        if server.replaces and server.workers > 1:
            os.kill(next(iter(rounds[0])), signal.SIGKILL)
            rounds.append(running.block_each("2", BLOCK, server.workers))
            all_counted()
        if server.reload:
            before = set().union(*rounds)
            server.reload(running.process, running.folder)
            until(lambda: running.processes() and not before & running.processes(), "all workers are new")
            rounds.append(running.block_each("3", BLOCK, server.workers))
            all_counted()
        # A heartbeat may be half a second old: until then, others still see the block of the round before.
        until(lambda: running.health()[0] == 200, "all are healthy")
        with running.clients(f"/one-sick/{SICK}", 1):
            until(lambda: list(running.folder.glob("one-sick.turn")), "one is blocked")
            while not running.turns("one-sick"):
                status, report = running.health()
                if status == 503:
                    named = [each["process"] for each in report["workers"].values() if each["status"] != "ok"]
                    seen.sick.append(named)
                time.sleep(0.1)
            rounds.append(until(lambda: running.turns("one-sick"), "it is over"))
        seen.sick_process = next(iter(rounds[-1]))
        all_counted()
        count_resets(seen, running, value)
        seen.loops = {part.split('"')[1] for part in running.scrape().split("asyncio_eventloop_name=")[1:]}
        seen.code = running.end()
        seen.log = running.log.read_text()
        seen.lines = [line for line in seen.log.splitlines() if "obsloop" in line]
        running.kill()  # the workers that Tornado leaves behind
        running.start()
        running.ready("plain")
        running.block_each("plain", BLOCK, server.workers)  # Sanic hangs if it is ended before all workers are ready
        seen.plain_code = running.end()
    return seen


def turnover(running: Running, value: Callable[[str], float]) -> Seen:
    """Let clients ask until each worker has ended twice, by the limit of its requests, and been replaced."""
    seen, server = Seen(), running.server
    with cared_for(running):
        running.start("obsloop", "run", "--address", running.address)
        running.ready("first")
        until(lambda: len(running.workers()) >= server.workers, "all workers are there")

        def ended_twice() -> bool:
            if numbers := set(running.workers()):
                seen.numbers.append(numbers)
            return len(running.turns("1")) >= 3 * server.workers

        with running.clients(f"/1/{BLOCK}", server.workers + 1):
            until(ended_twice, f"{server.workers} workers ended twice", 4 * LIMIT)
        count_all(seen, running, value)
        count_resets(seen, running, value)
        seen.processes = len(running.turns("1"))
        running.end()
        seen.log = running.log.read_text()
    return seen
