"""The tasks: grouped by coroutine and line, or as a tree in which each task stands under the one that awaits it."""

from __future__ import annotations

from obsloop.top import cells
from obsloop.top.cells import Column, Row, Table
from obsloop.top.lists import missing
from obsloop.top.shapes import Entry
from obsloop.top.source import Group, Reading

_GROUPED = (
    Column("TASKS", right=True),
    Column("OLDEST", right=True),
    Column("STATE", most=22),
    Column("WHERE", share=2, end=True),
    Column("COROUTINE", share=3, end=True),
)
_TREE = (
    Column("AGE", right=True),
    Column("STATE", most=9),
    Column("WORKER", most=10),
    Column("TASK, AND BELOW IT WHAT IT AWAITS", share=1),
    Column("WAITS FOR", share=1),
)
ORDERS = ("oldest", "tasks", "newest")
MAX_DEEP = 50

_Key = tuple[int | None, int]
"""A worker and a task's number in its listing."""


def grouped(reading: Reading, order: str) -> Table:
    """Return a row for all tasks of one coroutine that wait at one line."""
    rows: list[Row] = []
    for group in reading.groups:
        for entry in group.tasks["groups"] if group.tasks else ():
            states = ", ".join(
                f"{n:.0f} {state}" if len(entry["states"]) > 1 else state for state, n in entry["states"].items()
            )
            oldest = entry["oldest_seconds"]
            rows.append(
                Row(
                    (group.name, entry["loop"], entry["coroutine"], entry["at"]),
                    (cells.count(entry["tasks"]), cells.age(oldest), states, entry["at"], entry["coroutine"]),
                    {"oldest": oldest, "tasks": entry["tasks"], "newest": -oldest},
                    [
                        f"{entry['tasks']} tasks of {entry['coroutine']}, loop {entry['loop']} of {group.label}",
                        f"at {entry['at']} in {entry['in']}",
                        *([f"    {entry['source']}"] if entry["source"] else []),
                        f"the oldest is {entry['oldest_task']}, {cells.age(oldest)} old: {states}",
                    ],
                )
            )
    if rows and order in ORDERS:
        rows.sort(key=lambda row: -row.order[order])
    return Table(_GROUPED, rows, ORDERS, _notes(reading), "No running loop has a task.")


def tree(reading: Reading, order: str) -> Table:
    """Return a row for each task, under the task that awaits it."""
    rows: list[Row] = []
    for group in reading.groups:
        rows += _forest(group, group.tasks["tasks"] if group.tasks else [], order)
    return Table(_TREE, rows, ORDERS, _notes(reading), "No running loop has a task.")


def _forest(group: Group, tasks: list[Entry], order: str) -> list[Row]:
    known: dict[_Key, Entry] = {}
    for i, task in enumerate(tasks):
        # A service of an older version gives no numbers: then no task stands under another.
        known[task["worker"], task["id"] if task["id"] is not None else -1 - i] = task
    parents: dict[_Key, _Key] = {}
    below: dict[_Key, list[_Key]] = {}
    for above, task in known.items():
        for key in ((above[0], each) for each in task["awaits"]):
            # A task that several await stands under the first of them.
            if key in known and key not in parents and not _is_above(parents, key, above):
                parents[key] = above
                below.setdefault(above, []).append(key)
    sizes: dict[_Key, int] = {}

    def size(key: _Key) -> int:
        if key not in sizes:
            sizes[key] = 1 + sum(map(size, below.get(key, ())))
        return sizes[key]

    def rank(key: _Key) -> float:
        return -size(key) if order == "tasks" else known[key]["age_seconds"] * (1 if order == "newest" else -1)

    rows: list[Row] = []
    stack = [(key, 0) for key in sorted((key for key in known if key not in parents), key=rank, reverse=True)]
    while stack:
        key, depth = stack.pop()
        rows.append(_task(group, key, known[key], depth, below.get(key, [])))
        stack += [(each, depth + 1) for each in sorted(below.get(key, ()), key=rank, reverse=True)]
    return rows


def _is_above(parents: dict[_Key, _Key], key: _Key, other: _Key) -> bool:
    """Return whether `key` is above `other` already, or too many are: tasks can await each other in a circle."""
    for _ in range(MAX_DEEP):
        if other == key:
            return True
        if other not in parents:
            return False
        other = parents[other]
    return True


def _task(group: Group, key: _Key, task: Entry, depth: int, below: list[_Key]) -> Row:
    waits = task["waiting_on"] or task["waits_for"]
    state = f"{task['state']} for {waits}" if waits else str(task["state"])
    if task["waiting_seconds"]:
        state += f", since {cells.age(task['waiting_seconds'])}"
    if task["cancelling"]:
        state += "; its cancellation was requested"
    if below:
        state += f"; below it: {len(below)} task{'s' if len(below) > 1 else ''}"
    detail = [
        f"{task['name']}: {task['coroutine']}, {cells.whose(task)} of {group.label}",
        f"{state}; {cells.age(task['age_seconds'])} old",
        *(f"at {task[at]} in {task[where]}" for at, where in (("own_at", "own_in"), ("at", "in")) if task[at]),
        *([f"created at {task['created_at']} in {task['created_in']}"] if task["created_at"] else []),
    ]
    return Row(
        (group.name, *key, task["name"], task["coroutine"]),
        (
            cells.age(task["age_seconds"]),
            "cancelling" if task["cancelling"] else task["state"],
            cells.whose(task),
            f"{'  ' * (depth - 1)}{'└ ' if depth else ''}{task['name']} {cells.short(task['coroutine'])}",
            waits or task["own_at"] or task["at"],
        ),
        {},
        detail,
    )


def _notes(reading: Reading) -> list[str]:
    left = sum(group.tasks["not_shown"] for group in reading.groups if group.tasks)
    circles = [
        f"These wait for each other and cannot go on ({cells.whose(circle)}): {circle['text']}"
        for group in reading.groups
        for circle in (group.tasks["circles"] if group.tasks else ())
    ]
    return [*circles, *missing(reading), *([f"And {left} more tasks."] if left else [])]
