"""The executors that a loop hands jobs to: their names, their threads, the jobs in their queues."""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from obsloop.base import clock
from obsloop.introspect.attributes import class_of, clean, find, get, is_a, qualname_of, text
from obsloop.metrics.catalog import EXECUTOR

if TYPE_CHECKING:
    from obsloop.metrics.labelled import LabelledMetrics
    from obsloop.metrics.registry import LoopMetrics
    from obsloop.metrics.snapshot import Value

QUEUED = "asyncio.executor.job.queue_duration"
RAN = "asyncio.executor.job.duration"
DELIVERED = "asyncio.executor.result.delay"
_NUMBERED = re.compile(r"(Thread|Interpreter)PoolExecutor-\d+")  # the prefix of a pool that is given none


class Pool:
    """One executor that a loop uses, held weakly, and its jobs from this loop."""

    __slots__ = ("blind", "blocks", "jobs", "name", "raw", "ref")

    def __init__(self, executor: Any, name: str, ref: weakref.ref[Any]) -> None:
        self.name, self.ref = name, ref
        self.blind = not is_standard(executor)
        """Whether it gets the function itself. Then obsloop cannot see when a job begins."""
        self.jobs: dict[Any, None] = {}
        """The jobs that have not been delivered, oldest first."""
        self.blocks: dict[str, tuple[list[int], ...]] = {}
        """By outcome, the blocks in which the loop's metrics count."""

    def opened(self, metrics: LoopMetrics, outcome: str) -> tuple[list[int], ...]:
        """Return the blocks of this outcome: queue, run, delivery."""
        blocks = tuple(metrics.labelled.histogram(name, self.name, outcome) for name in (QUEUED, RAN, DELIVERED))
        self.blocks[outcome] = blocks
        return blocks

    def now(self) -> tuple[int, int, int | None, int]:
        """Return waiting jobs, running jobs, threads (None: unknown), when the oldest job was submitted (0: none)."""
        executor = self.ref()
        jobs = [job for job in _copy(self.jobs) if not job.ended_ns]
        pickles = isinstance(executor, _pickling())
        if not self.blind:
            active = sum(1 for job in jobs if job.began_ns)
        else:
            workers = get(executor, "_max_workers")
            active = min(len(jobs), workers) if type(workers) is int else len(jobs)
        threads = get(executor, "_processes") if pickles else None
        if threads is None:  # a pool of interpreters, or one that has started no process yet
            threads = get(executor, "_threads")
        if threads is None and pickles:
            threads = ()
        count = len(cast(Any, threads)) if isinstance(threads, dict | set | tuple) else None
        return len(jobs) - active, active, count, min((job.submitted_ns for job in jobs), default=0)


def collect(loops: Iterable[Any], labelled: LabelledMetrics) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return what the executors of these loops, which share a name, are busy with at this moment."""
    queued: dict[tuple[str, ...], Value] = {}
    threads: dict[tuple[str, ...], Value] = {}
    active: dict[tuple[str, ...], Value] = {}
    oldest: dict[tuple[str, ...], Value] = {}
    now_ns = clock.monotonic_ns()
    counted: set[int] = set()
    for loop in loops:
        for pool in list(loop._obsloop.executors.values()):
            key = (labelled.fitting(EXECUTOR, pool.name),)
            waiting, running, count, since_ns = pool.now()
            _add(queued, key, waiting)
            _add(active, key, running)
            if count is not None and id(pool.ref()) not in counted:  # loops may share it
                counted.add(id(pool.ref()))
                _add(threads, key, count)
            age = max(0, now_ns - since_ns) / 1e9 if since_ns else 0.0
            oldest[key] = max(oldest.get(key, 0.0), age)  # type: ignore[type-var]  # no histogram is among them
    return {
        "asyncio.executor.queue.length": queued,
        "asyncio.executor.thread.count": threads,
        "asyncio.executor.thread.active": active,
        "asyncio.executor.oldest_job.age": oldest,
    }


def pool_of(loop: Any, executor: Any) -> Pool:
    pools: dict[int, Pool] = loop._obsloop.executors
    key = id(executor)

    def gone(ref: weakref.ref[Any]) -> None:
        found = pools.get(key)
        if found is not None and found.ref is ref and not found.jobs:
            pools.pop(key, None)

    try:
        ref = weakref.ref(executor, gone)
    except TypeError:  # then all executors of its class count as one
        key = id(class_of(executor))
        pool = pools.get(key)
        if pool is not None:
            return pool
        ref = weakref.ref(class_of(executor), gone)
    pool = pools[key] = Pool(executor, _name_of(loop, executor), ref)
    return pool


def forget(pools: dict[int, Pool], pool: Pool) -> None:
    """Forget a pool whose executor is gone, after its last job."""
    for key, found in list(pools.items()):
        if found is pool:
            pools.pop(key, None)


def _name_of(loop: Any, executor: Any) -> str:
    if executor is loop._default_executor:
        return "default"
    prefix = text(get(executor, "_thread_name_prefix")) if isinstance(executor, ThreadPoolExecutor) else ""
    if not prefix or _NUMBERED.fullmatch(prefix):
        prefix = qualname_of(class_of(executor)).rpartition(".")[2]
    return clean(prefix)


def is_standard(executor: Any) -> bool:
    """Return whether it is the standard pool of threads, or a subclass with the same ``submit``."""
    cls = class_of(executor)
    if cls is ThreadPoolExecutor:
        return True
    return is_a(executor, ThreadPoolExecutor) and find(cls, "submit") is find(ThreadPoolExecutor, "submit")


def _pickling() -> tuple[type[Any], ...]:
    """Return the loaded ones of the standard pools that pickle. Reading them from the module would load them."""
    found = (
        getattr(sys.modules.get("concurrent.futures.process"), "ProcessPoolExecutor", None),
        getattr(sys.modules.get("concurrent.futures.interpreter"), "InterpreterPoolExecutor", None),
    )
    return tuple(cls for cls in found if cls is not None)


def _add(points: dict[tuple[str, ...], Any], key: tuple[str, ...], value: int) -> None:
    points[key] = points.get(key, 0) + value


def _copy(jobs: dict[Any, None]) -> list[Any]:
    """Return all jobs. Copying is one step under the GIL; where it is not, the loop may interrupt it."""
    for _ in range(100):
        try:
            return list(jobs)
        except RuntimeError:
            continue
    return []
