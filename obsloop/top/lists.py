"""The views of culprits, executors and lints."""

from __future__ import annotations

from collections.abc import Iterator

from obsloop.service import executors, source, text
from obsloop.top import cells
from obsloop.top.cells import Column, Row, Table
from obsloop.top.shapes import Entry
from obsloop.top.source import Group, Reading

_CULPRITS = (
    Column("5 MIN", right=True),
    Column("1 H", right=True),
    Column("BLOCKS", right=True),
    Column("WORST", right=True),
    Column("LAST", right=True),
    Column("CAUSE", most=14),
    Column("WHERE", share=2, end=True),
    Column("CULPRIT", share=3, end=True),
)
CULPRIT_ORDERS = ("5 min", "1 h", "blocks", "worst", "last")
_EXECUTORS = (
    Column(""),
    Column("WORKER", most=16),
    Column("EXECUTOR", most=20),
    Column("BUSY", right=True),
    Column("OF", right=True),
    Column("QUEUED", right=True),
    Column("OLDEST", right=True),
    Column("HELD BY", share=1),
)
EXECUTOR_ORDERS = ("wait", "queued", "busy")
_LINTS = (
    Column("LAST", right=True),
    Column("COUNT", right=True),
    Column("LINT", most=25),
    Column("WORKER", most=14),
    Column("WHAT", share=1),
)
LINT_ORDERS = ("last", "count")


def culprits(reading: Reading, order: str) -> Table:
    """Return who blocked the loops; the blocks of all workers of a group are added up."""
    rows = [_culprit(group, entry) for group, entry in _each(reading, "culprits")]
    _sort(rows, order)
    return Table(_CULPRITS, rows, CULPRIT_ORDERS, missing(reading), "Nothing has blocked a loop in the last 24 hours.")


def _culprit(group: Group, entry: Entry) -> Row:
    minutes, hour, day = (entry["windows"][name] for name in ("5m", "1h", "24h"))
    last = entry["last_seconds_ago"]
    detail = [
        f"{cells.place(entry)}, loop {entry['loop']} of {group.label}",
        f"24 h: {text.seconds(day['seconds'])} in {day['blocks']} blocks, at most {text.seconds(day['worst_seconds'])}",
        "Causes: " + ", ".join(f"{text.cause(name)} {text.seconds(spent)}" for name, spent in entry["causes"].items()),
    ]
    detail += [
        f"{text.seconds(line['seconds'])} in {line['blocks']} blocks: {line['file']}  {line['source']}".rstrip()
        for line in entry["lines"]
    ]
    if entry["stack"]:
        detail += ["Last seen at:", *(f"  {line}" for line in source.lines(entry["stack"]))]
    return Row(
        (group.name, entry["loop"], entry["function"], entry["file"].rpartition(":")[0]),
        (
            cells.duration(minutes["seconds"]) if minutes["blocks"] else "-",
            cells.duration(hour["seconds"]) if hour["blocks"] else "-",
            cells.count(hour["blocks"]),
            cells.duration(entry["worst_seconds"]),
            cells.age(last),
            text.cause(entry["cause"]),
            entry["file"],
            entry["function"],
        ),
        {
            "5 min": minutes["seconds"],
            "1 h": hour["seconds"],
            "blocks": hour["blocks"],
            "worst": entry["worst_seconds"],
            "last": -last,
        },
        detail,
    )


def executor_table(reading: Reading, order: str) -> Table:
    """Return what the executors are busy with."""
    rows: list[Row] = []
    for group, entry in _each(reading, "executors"):
        most = entry["limit"] if entry["limit"] is not None else entry["threads"]
        held = ", ".join(f"{each['name']} ({each['workers']})" for each in entry["held_by"])
        detail = [f"{group.label}, {cells.whose(entry)}: {executors.line(entry)}"]
        detail += [f"  {each['workers']} by {each['name']} ({each['file']})" for each in entry["held_by"]]
        rows.append(
            Row(
                (group.name, entry["worker"], entry["loop"], entry["executor"]),
                (
                    "!" if entry["queued"] else "",
                    cells.whose(entry),
                    entry["executor"],
                    cells.count(entry["active"]),
                    cells.count(most),
                    cells.count(entry["queued"]),
                    cells.duration(entry["longest_wait_seconds"]) if entry["queued"] else "-",
                    held,
                ),
                {"wait": entry["longest_wait_seconds"], "queued": entry["queued"], "busy": entry["active"]},
                detail,
                alarm=entry["queued"] > 0,
            )
        )
    _sort(rows, order)
    return Table(_EXECUTORS, rows, EXECUTOR_ORDERS, missing(reading), "No loop has an executor so far.")


def lints(reading: Reading, order: str) -> Table:
    """Return what is wrong with tasks."""
    rows: list[Row] = []
    for group, entry in _each(reading, "lints"):
        said = f"{entry['name']} {entry['message']}"
        rows.append(
            Row(
                (group.name, entry["worker"], entry["loop"], entry["lint"], entry["name"], entry["file"]),
                (
                    cells.age(entry["last_seconds_ago"]),
                    cells.count(entry["count"]),
                    entry["lint"].replace("_", " "),
                    cells.whose(entry),
                    said,
                ),
                {"last": -entry["last_seconds_ago"], "count": entry["count"]},
                [said, f"{entry['file']}, {group.label}, {cells.whose(entry)}"],
            )
        )
    _sort(rows, order)
    return Table(_LINTS, rows, LINT_ORDERS, missing(reading), "No task has anything wrong that obsloop knows of.")


def missing(reading: Reading) -> list[str]:
    """Return a line about each worker of which nothing is shown."""
    return [
        f"Worker {worker.number} (process {worker.process}) does not answer; it is not in this list."
        for group in reading.groups
        for worker in group.workers
        if not worker.answered
    ]


def _each(reading: Reading, name: str) -> Iterator[tuple[Group, Entry]]:
    return ((group, entry) for group in reading.groups for entry in group.overview[name])


def _sort(rows: list[Row], order: str) -> None:
    if rows and order in rows[0].order:
        rows.sort(key=lambda row: -row.order[order])
