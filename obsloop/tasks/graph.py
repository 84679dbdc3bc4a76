"""Who awaits whom among the tasks of one listing, the locks between them, and circles, in which all wait for ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from obsloop.tasks.awaits import Wait

MAX_CIRCLES = 20
MAX_PLACES = 5
Place = tuple[str, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockInfo:
    """A lock, semaphore, condition, event, queue or barrier for which listed tasks wait."""

    loop_name: str | None
    what: str
    """``Lock.acquire``, ``Queue.get`` and so on."""
    class_name: str
    waiters: int
    """How many tasks wait in its line, as the object says. Some may not be listed."""
    tasks: tuple[int, ...]
    """The listed tasks that wait for it, by their number in the listing."""
    detail: str
    """Its state in numbers."""
    longest: float | None
    """How long, in seconds, the first of these tasks has waited at least; None if no census has seen it wait."""
    longest_task: int | None
    places: tuple[tuple[Place, int], ...]
    """Lines of the program where tasks wait for it, with their numbers, the most frequent first."""
    places_left_out: int
    holders: tuple[int, ...]
    """The listed tasks that are in an ``async with`` block of it. A task that holds it otherwise is not known."""
    made_at: Place | None
    """The line that made it, if the program asked for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How the tasks of a listing wait for each other, by their numbers in it."""

    awaits: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    """For each task the others that it awaits."""
    locks: list[LockInfo] = field(default_factory=list[LockInfo])
    """Those with the longest wait first."""
    circles: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    """Tasks each of which waits for the next, also through a lock that it holds, and the last for the first."""
    circles_left_out: int = 0
    not_listed: int = 0
    """How many awaited tasks are not in the listing, or were not read."""


@dataclass(slots=True)
class Node:
    """What a listing knows of one task, for this module."""

    task_id: int
    wait: Wait
    loop_name: str | None
    place: Place
    waited: float | None


def connect(nodes: Sequence[Node], still: Iterable[bool], left_out: int = 0) -> Waits:
    """Return who waits for whom. ``still`` says of each task whether it still waits for what it waited for.

    It is asked only if there is a circle.
    """
    awaits, blocked, unlisted = _edges(nodes)
    holders: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        for lock_id in node.wait.held:
            holders.setdefault(lock_id, []).append(i)
    for i, node in enumerate(nodes):
        lock = node.wait.lock
        holding = holders.get(lock.held_id, []) if lock is not None and lock.held_id and node.wait.future_id else []
        if len(holding) == 1 and lock is not None and lock.what == "Lock.acquire":
            blocked[i].append(holding[0])
    circles = _circles(blocked)
    if circles:
        lasts = list(still)
        circles = [circle for circle in circles if all(lasts[i] for i in circle)]
    return Waits(
        awaits=[tuple(others) for others in awaits],
        locks=_locks(nodes, holders),
        circles=circles[:MAX_CIRCLES],
        circles_left_out=max(0, len(circles) - MAX_CIRCLES),
        not_listed=len(unlisted) + left_out,
    )


def _edges(nodes: Sequence[Node]) -> tuple[list[dict[int, None]], list[list[int]], set[int]]:
    """Return for each task whom it awaits and who all must end before it goes on; and the tasks that are not listed."""
    numbers = {node.task_id: i for i, node in enumerate(nodes)}
    awaits: list[dict[int, None]] = [{} for _ in nodes]
    blocked: list[list[int]] = [[] for _ in nodes]
    unlisted: set[int] = set()
    for i, node in enumerate(nodes):
        inner = [numbers[task_id] for task_id in node.wait.inner if task_id in numbers]
        grouped = [numbers[task_id] for task_id in node.wait.grouped if task_id in numbers]
        awaits[i].update(dict.fromkeys([*inner, *grouped]))
        unlisted.update(task_id for task_id in (*node.wait.inner, *node.wait.grouped) if task_id not in numbers)
        if node.wait.all_of:
            blocked[i] += inner
        for task_id in node.wait.awaiters:
            if task_id in numbers:
                awaits[numbers[task_id]][i] = None
    return awaits, blocked, unlisted


def _locks(nodes: Sequence[Node], holders: dict[int, list[int]]) -> list[LockInfo]:
    lines: dict[tuple[int, str], list[int]] = {}
    for i, node in enumerate(nodes):
        lock = node.wait.lock
        if lock is not None and node.wait.future_id:
            lines.setdefault((lock.lock_id, lock.what), []).append(i)
    found: list[LockInfo] = []
    for line in lines.values():
        lock = nodes[line[0]].wait.lock
        if lock is None:
            continue
        places: dict[Place, int] = {}
        for i in line:
            places[nodes[i].place] = places.get(nodes[i].place, 0) + 1
        ranked = sorted(places.items(), key=lambda entry: -entry[1])
        seen = [(waited, -i) for i in line if (waited := nodes[i].waited) is not None]
        longest, first = max(seen, default=(None, None))
        found.append(
            LockInfo(
                loop_name=nodes[line[0]].loop_name,
                what=lock.what,
                class_name=lock.class_name,
                waiters=max(lock.waiters, len(line)),
                tasks=tuple(line),
                detail=lock.detail,
                longest=longest,
                longest_task=None if first is None else -first,
                places=tuple(ranked[:MAX_PLACES]),
                places_left_out=max(0, len(ranked) - MAX_PLACES),
                holders=tuple(dict.fromkeys(holders.get(lock.held_id, ()))) if lock.held_id else (),
                made_at=lock.made_at,
            )
        )
    return sorted(found, key=lambda lock: (-(lock.longest or 0.0), -lock.waiters))


def _circles(blocked: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return a circle through each task at which a search meets its own path again; each circle once."""
    found: dict[tuple[int, ...], None] = {}
    finished = [False] * len(blocked)
    for root in range(len(blocked)):
        if finished[root] or not blocked[root]:
            continue
        path: list[int] = [root]
        at = {root: 0}
        rest = [iter(blocked[root])]
        while path:
            for other in rest[-1]:
                if other in at:
                    circle = path[at[other] :]
                    least = circle.index(min(circle))
                    found[tuple(circle[least:] + circle[:least])] = None
                elif not finished[other]:
                    at[other] = len(path)
                    path.append(other)
                    rest.append(iter(blocked[other]))
                    break
            else:
                last = path.pop()
                rest.pop()
                del at[last]
                finished[last] = True
    return list(found)
