"""The lint ``executor_starved``: jobs wait too long for a worker, and nothing has to complete for it to be seen.

An executor whose workers are all busy is healthy as long as its queue moves. It is starved if the oldest job in the
queue has waited for ``Settings.starved_after`` at two checks, one after the other; so a process that was stopped for a
while is not reported. The report names the functions that hold the workers. It comes once, again when the queue has
doubled, and again when the executor is starved anew (``tasks.lints.findings``). The watchdog's thread checks: often
while a job waits, else now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from obsloop.base import clock, gc_pause
from obsloop.base.fork import reset_in_child
from obsloop.introspect.functions import Site
from obsloop.metrics import runs
from obsloop.probes import anyio_threads, executor_loads
from obsloop.tasks.lints import findings

if TYPE_CHECKING:
    from collections import Counter

    from obsloop.probes.executor_pools import Load

LINT = "executor_starved"
LOOK_NS = 1_000_000_000
ANYIO_NS = 500_000_000
"""Between two checks of a loop with anyio's threads, whose waits count from the first check that sees them."""
QUEUED_NS = 100_000_000
"""Between two checks while a job waits."""
SHARE = 1_000
"""Checks use one thousandth of a core at most: a check of very many jobs is followed by a longer pause."""
MAX_NAMED = 5
UNKNOWN = Site("(unknown)", "", 0)
_MORE = {
    "default": "loop.set_default_executor()",
    anyio_threads.NAME: "anyio.to_thread.current_default_thread_limiter().total_tokens",
}


class Starvation:
    """The lint, for all loops of this process. A forked child gets a new one."""

    def __init__(self) -> None:
        self._groups = findings.Groups()
        self._before: set[findings.Key] = set()
        """The executors that were starved at the last check."""
        self.next_ns = 0

    def look(self, now_ns: int) -> int:
        """Check all executors of the running loops, if it is time. Return when it is time again."""
        if now_ns < self.next_ns:
            return self.next_ns
        self.next_ns = now_ns + LOOK_NS  # also if this raises
        rest_ns, began_ns = LOOK_NS, time.thread_time_ns()
        starved: set[findings.Key] = set()
        for loop in _loops():
            worst: dict[str, Load] = {}
            for load in executor_loads.loads(loop, now_ns):
                if load.queued:
                    rest_ns = QUEUED_NS
                elif load.executor == anyio_threads.NAME:
                    rest_ns = min(rest_ns, ANYIO_NS)
                known = worst.get(load.executor)  # pools may have the same name
                if load.waiting_ns and (known is None or load.waiting_ns < known.waiting_ns):
                    worst[load.executor] = load
            limit = loop._obsloop.settings.starved_after
            for name, load in worst.items():
                seconds = (now_ns - load.waiting_ns) / 1e9
                if seconds < limit:
                    continue
                key = (id(loop._obsloop.counters), name)
                starved.add(key)
                if key in self._before and self._groups.is_news(key, load.queued):
                    _tell(loop, load, seconds)
        self._groups.settle(starved)
        self._before = starved
        pause_ns = max(rest_ns, SHARE * (time.thread_time_ns() - began_ns))
        # Without anything to watch, this joins the watchdog's other work, which mostly comes a little earlier.
        self.next_ns = now_ns + (pause_ns // 2 if pause_ns == LOOK_NS else pause_ns)
        return now_ns + pause_ns


_starvation = Starvation()


def go_on() -> int:
    """Check the executors, if it is time. Return when it is time again. For the watchdog."""
    now_ns = clock.REAL()
    if clock.monotonic_ns is not clock.REAL:
        return now_ns + LOOK_NS  # a test has replaced the clock
    with gc_pause.held:
        return _starvation.look(now_ns)


def _tell(loop: Any, load: Load, seconds: float) -> None:
    obs = loop._obsloop
    holders = executor_loads.holders(loop, load.executor)
    site, message, detail = report(load, seconds, holders)
    findings.add(obs, LINT)
    findings.tell(obs, LINT, site, message, n=load.queued, seconds=seconds, detail=detail, executor=load.executor)


def report(load: Load, seconds: float, holders: Counter[Site]) -> tuple[Site, str, str]:
    """Return the function that holds most workers, the message about it, and what else to say."""
    top = holders.most_common()
    most = load.limit if load.limit is not None else load.threads
    workers = "workers" if most is None else f"{most} {load.workers}"
    waits = f"{load.queued} jobs wait, the longest" if load.queued > 1 else "a job has waited"
    queue = f"of executor {load.executor}: {waits} for {seconds:.1f} s"
    also = ""
    if top:
        site, n = top[0]
        message = f"holds {n} of the {workers} {queue}"
        others = [f"{other.name} ({number})" for other, number in top[1:MAX_NAMED]]
        if len(top) > MAX_NAMED:
            others.append("others")
        also = f"also held by {', '.join(others)}; " if others else ""
    else:
        site, message = UNKNOWN, f"code holds the {workers} {queue}"
    by = f" ({_MORE[load.executor]})" if load.executor in _MORE else ""
    return site, message, f"{also}give slow calls a time-out or an executor of their own, or this one more workers{by}"


def _loops() -> Iterator[Any]:
    """Return all loops that run now and want lints, including loops in whose callbacks others run."""
    for innermost in list(runs.runs.values()):
        run: runs.Run | None = innermost
        while run is not None:
            loop = run.loop()
            if loop is not None and loop._obsloop.settings.lints and loop._obsloop.settings.watchdog:
                yield loop
            run = run.outer


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _starvation  # noqa: PLW0603 - as a whole: the parent may have been in the middle of a check
    _starvation = Starvation()
