"""The executors that a loop hands jobs to: their names, their threads, the jobs in their queues."""

from __future__ import annotations

import re
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from obsloop.introspect.attributes import class_of, clean, find, get, is_a, qualname_of, text

if TYPE_CHECKING:
    from obsloop.metrics.registry import LoopMetrics

QUEUED = "asyncio.executor.job.queue_duration"
RAN = "asyncio.executor.job.duration"
DELIVERED = "asyncio.executor.result.delay"
_NUMBERED = re.compile(r"(Thread|Interpreter)PoolExecutor-\d+")  # the prefix of a pool that is given none


class Load(NamedTuple):
    """What an executor is busy with at one moment, of the jobs of one loop."""

    executor: str
    """Its name."""
    queued: int
    """Jobs that no worker has begun."""
    active: int
    """Workers that run a job."""
    threads: int | None
    """The workers that exist; None if that is not known."""
    limit: int | None
    """The most workers that it may have; None if that is not known, or if there is no limit."""
    oldest_ns: int
    """When the oldest job that has not ended was submitted; 0 if there is none."""
    waiting_ns: int
    """When the oldest job in the queue was submitted; 0 if there is none."""
    workers: str = "threads"
    """``threads`` or ``processes``."""


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

    def load(self) -> Load:
        """Return what it is busy with now. From any thread."""
        executor = self.ref()
        jobs = [job for job in _copy(self.jobs) if not job.ended_ns]
        pickles = isinstance(executor, _pickling())
        limit = get(executor, "_max_workers")
        if type(limit) is not int:
            limit = None
        waiting = [job for job in jobs if not job.began_ns]
        if self.blind:
            waiting = [] if limit is None else jobs[limit:]  # they begin in this order
        processes = get(executor, "_processes") if pickles else None
        threads = processes
        if threads is None:  # a pool of interpreters, or one that has started no process yet
            threads = get(executor, "_threads")
        if threads is None and pickles:
            threads = ()
        return Load(
            self.name,
            len(waiting),
            len(jobs) - len(waiting),
            len(cast(Any, threads)) if isinstance(threads, dict | set | tuple) else None,
            limit,
            min((job.submitted_ns for job in jobs), default=0),
            min((job.submitted_ns for job in waiting), default=0),
            "threads" if processes is None else "processes",
        )

    def running(self) -> list[Any]:
        """Return the jobs that workers run now."""
        return [job for job in _copy(self.jobs) if job.began_ns and not job.ended_ns]


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


def _copy(jobs: dict[Any, None]) -> list[Any]:
    """Return all jobs. Copying is one step under the GIL; where it is not, the loop may interrupt it."""
    for _ in range(100):
        try:
            return list(jobs)
        except RuntimeError:
            continue
    return []
