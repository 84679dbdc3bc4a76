"""One reading, printed: as tables for people and `grep`, or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from obsloop.service import text
from obsloop.service.pages import moment
from obsloop.top import cells, lists
from obsloop.top.cells import Table
from obsloop.top.overview import Overview
from obsloop.top.source import Reading

MAX_CULPRITS = 10


def as_text(reading: Reading, width: int) -> str:
    """Return the overview, what blocks now, culprits, executors and lints as lines of at most `width` columns."""
    overview = Overview().table(reading, "worker")
    blocks = [_cut(row.detail, width) for row in overview.rows if row.alarm]
    culprits = lists.culprits(reading, lists.CULPRIT_ORDERS[0])
    left = len(culprits.rows) - MAX_CULPRITS
    culprits.rows = culprits.rows[:MAX_CULPRITS]
    parts: list[Sequence[str]] = [
        [text.cut(f"obsloop top, {moment(reading.at)}; rates of the last 10 s", width)],
        cells.lines(overview, width),
        *blocks,
        ["Culprits", *_lines(culprits, width), *([f"and {left} more"] if left > 0 else [])],
    ]
    for name, table in (
        ("Executors", lists.executor_table(reading, lists.EXECUTOR_ORDERS[0])),
        ("Lints", lists.lints(reading, lists.LINT_ORDERS[0])),
    ):
        if table.rows:
            parts.append([name, *_lines(table, width)])
    if reading.note:
        parts.append([text.cut(reading.note, width)])
    return text.joined(*parts)


def as_json(reading: Reading) -> str:
    """Return the same and the stacks as JSON, with nothing cut."""
    groups: list[dict[str, Any]] = [
        {
            "group": group.name,
            "label": group.label,
            "loops": [{name: value for name, value in state.items() if name != "group"} for state in states],
            **{name: group.overview[name] for name in ("culprits", "executors", "lints")},
        }
        for group, states in Overview().states(reading)
    ]
    found = {"taken_at": moment(reading.at), "groups": groups}
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def _lines(table: Table, width: int) -> list[str]:
    if not table.rows:
        return [text.cut(table.empty, width)]
    return cells.lines(table, width)


def _cut(lines: Sequence[str], width: int) -> list[str]:
    return [text.cut(line, width) for line in lines]
