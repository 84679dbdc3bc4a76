"""What all executors of a loop are busy with: its pools, and anyio's threads. For metrics, the lint and ``/tasks``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.hotpath import held
from obsloop.introspect import callbacks
from obsloop.metrics.catalog import EXECUTOR
from obsloop.probes import anyio_threads

if TYPE_CHECKING:
    from obsloop.introspect.functions import Site
    from obsloop.metrics.labelled import LabelledMetrics
    from obsloop.metrics.snapshot import Value
    from obsloop.probes.executor_pools import Load


def loads(loop: Any, now_ns: int) -> list[Load]:
    """Return what each executor of this loop is busy with. From any thread."""
    found = [pool.load() for pool in list(loop._obsloop.executors.values())]
    of_anyio = anyio_threads.load(loop, now_ns)
    return found if of_anyio is None else [*found, of_anyio]


def collect(loops: Iterable[Any], labelled: LabelledMetrics) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return what the executors of these loops, which share a name, are busy with at this moment."""
    queued: dict[tuple[str, ...], Value] = {}
    threads: dict[tuple[str, ...], Value] = {}
    active: dict[tuple[str, ...], Value] = {}
    oldest: dict[tuple[str, ...], Value] = {}
    now_ns = clock.monotonic_ns()
    counted: set[int] = set()

    def add(load: Load, *, with_threads: bool) -> None:
        key = (labelled.fitting(EXECUTOR, load.executor),)
        _add(queued, key, load.queued)
        _add(active, key, load.active)
        if load.threads is not None and with_threads:
            _add(threads, key, load.threads)
        age = max(0, now_ns - load.oldest_ns) / 1e9 if load.oldest_ns else 0.0
        oldest[key] = max(oldest.get(key, 0.0), age)  # type: ignore[type-var]  # no histogram is among them

    for loop in loops:
        for pool in list(loop._obsloop.executors.values()):
            shared = id(pool.ref())  # loops may share an executor
            add(pool.load(), with_threads=shared not in counted)
            counted.add(shared)
        of_anyio = anyio_threads.load(loop, now_ns)
        if of_anyio is not None:
            add(of_anyio, with_threads=True)
    return {
        "asyncio.executor.queue.length": queued,
        "asyncio.executor.thread.count": threads,
        "asyncio.executor.thread.active": active,
        "asyncio.executor.oldest_job.age": oldest,
    }


def holders(loop: Any, executor: str) -> Counter[Site]:
    """Return the functions that the executors of this name run for the loop, each with how many workers it holds.

    Empty for an executor that obsloop cannot look into, such as a pool of processes. From any thread.
    """
    obs = loop._obsloop
    found: Counter[Site] = Counter()
    if executor == anyio_threads.NAME:
        found.update(anyio_threads.functions(loop))
    counters = obs.counters
    if counters is None or held.full(obs):
        return found
    began_ns = counters.began_ns
    things: list[Any] = []  # the jobs' functions: if one ends meanwhile, the loop's thread drops what it held
    for pool in list(obs.executors.values()):
        if pool.name == executor:
            things += [job.__wrapped__ for job in pool.running()[: anyio_threads.MAX_THREADS]]
    found.update(callbacks.site_of_callback(thing) for thing in things if thing is not None)
    if things:
        held.hand_over(loop, began_ns, clock.monotonic_ns(), things)
    return found


def _add(points: dict[tuple[str, ...], Any], key: tuple[str, ...], value: int) -> None:
    points[key] = points.get(key, 0) + value
