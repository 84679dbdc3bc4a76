"""The metrics of a whole group: its workers added up, and each alone where only that makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from obsloop.group import current
from obsloop.metrics.snapshot import Snapshot

if TYPE_CHECKING:
    from obsloop.group.membership import Member, Worker


@dataclass(frozen=True, slots=True)
class GroupSnapshots:
    """The metrics of all workers of a group at one moment, as they were published."""

    loops: Mapping[str, Snapshot]
    """The sums over all workers, by loop name. Counters and histograms include workers that are gone."""
    workers: Mapping[tuple[int, str], Snapshot]
    """The metrics of each worker, by its slot's number and by loop name. ``running`` is false for one that is gone."""
    process: Snapshot
    """The sums of the metrics of the processes."""


def group_snapshots() -> GroupSnapshots | None:
    """Return the metrics of all workers of this process's group; None if it is in none.

    Workers that do not answer within 0.1 s are in it as they last published. Those that are stuck count as blocked.
    """
    member: Member | None = current.member
    return None if member is None else merged(member.workers())


def merged(workers: list[Worker]) -> GroupSnapshots:
    """Return the metrics of these workers."""
    from obsloop.group.published import snapshot_of, sum_of  # noqa: PLC0415

    parts: dict[str, list[Any]] = {}
    single: dict[tuple[int, str], Any] = {}
    for worker in workers:
        for name, part in _of_now(worker)["loops"].items():
            parts.setdefault(name, []).append(part)
            single[worker.number, name] = part
    process = sum_of([_of_now(worker)["process"] for worker in workers])
    return GroupSnapshots(
        {name: snapshot_of(name, sum_of(found)) for name, found in parts.items()},
        {key: snapshot_of(key[1], part) for key, part in single.items()},
        snapshot_of("", process),
    )


def _of_now(worker: Worker) -> Any:
    """Return a worker's metrics, with what is known by now: that it is gone, or since when it is blocked."""
    from obsloop.group.published import lasting  # noqa: PLC0415

    if not worker.alive:
        return lasting(worker.metrics)
    if worker.health is None or worker.here:
        return worker.metrics
    running = worker.health.loops
    loops: dict[str, Any] = {}
    for name, part in worker.metrics["loops"].items():
        blocked = running.get(name, 0) / 1e9
        data = {**part["data"], "asyncio.eventloop.blocked.time": [[(), blocked]]}
        loops[name] = {**part, "running": name in running, "blocked": blocked, "data": data}
    return {**worker.metrics, "loops": loops}
