"""Lay out tables for a terminal of any width, and write what stands in their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from obsloop.service import text
from obsloop.top.shapes import Entry

GAP = " "


class Column(NamedTuple):
    """One column of a table."""

    title: str
    right: bool = False
    """Whether it is aligned to the right."""
    share: int = 0
    """How much it gets of the room that is left; 0: it is as wide as its widest cell."""
    end: bool = False
    """Whether the end of a cell that is too long is kept, not its beginning."""
    most: int = 20
    """A column without a share is no wider than this."""


@dataclass(slots=True)
class Row:
    """One line of a table, and what a person reads when it is chosen."""

    key: tuple[object, ...]
    """The same from reading to reading."""
    cells: Sequence[str]
    order: dict[str, float] = field(default_factory=dict[str, float])
    """By the name of an order: the largest comes first."""
    detail: list[str] = field(default_factory=list[str])
    alarm: bool = False
    """Whether it is about something that is blocked now."""
    head: bool = False
    """Whether it is a line above others, which have its group."""


@dataclass(slots=True)
class Table:
    """All that one view shows."""

    columns: Sequence[Column]
    rows: list[Row]
    orders: Sequence[str] = ()
    """The names of the orders, the usual one first. Empty: the rows have only one."""
    notes: list[str] = field(default_factory=list[str])
    """Lines about what is not shown, or about a process of which nothing is."""
    empty: str = ""
    """What is said if there are no rows."""


def widths(table: Table, room: int) -> list[int]:
    """Return the widths of the columns, so that a line fits into `room`."""
    found = [
        0 if column.share else min(column.most, max([text.width(column.title), *_cells(table, i)]))
        for i, column in enumerate(table.columns)
    ]
    left = room - sum(found) - len(GAP) * (len(found) - 1)
    shares = sum(column.share for column in table.columns)
    for i, column in enumerate(table.columns):
        if column.share:
            wanted = max([text.width(column.title), *_cells(table, i)])
            found[i] = max(4, min(wanted, left * column.share // shares))
            left, shares = left - found[i], shares - column.share
    return found


def _cells(table: Table, i: int) -> list[int]:
    return [text.width(row.cells[i]) for row in table.rows if not row.head]


def line(columns: Sequence[Column], cells: Sequence[str], found: Sequence[int]) -> str:
    """Return a line with these cells."""
    return GAP.join(
        text.pad(text.cut(cell, width, end=column.end), width, right=column.right)
        for column, cell, width in zip(columns, cells, found, strict=True)
    )


def lines(table: Table, room: int) -> list[str]:
    """Return the title and all rows as lines."""
    found = widths(table, room)
    titles = line(table.columns, [column.title for column in table.columns], found)
    rows = [text.cut(row.cells[0], room) if row.head else line(table.columns, row.cells, found) for row in table.rows]
    return [each.rstrip() for each in (titles, *rows)]


def share(value: float | None) -> str:
    """Return a share in per cent, in at most six columns."""
    if value is None:
        return "-"
    return f"{value * 100:.0f} %" if value >= 0.0995 else f"{value * 100:.1f} %"


def duration(value: float | None) -> str:
    """Return a duration, in at most seven columns."""
    if value is None:
        return "-"
    if value < 0.0001:
        return "<0.1 ms" if value > 0 else "0 ms"
    return f"{value / 60:.0f} min" if value >= 600 else text.seconds(value)


def age(value: float) -> str:
    """Return an age in one unit: `4 s`, `12 min`, `5 h`, `3 d`."""
    for size, unit in ((172_800, 86_400), (7_200, 3_600), (100, 60)):
        if value >= size:
            return f"{value / unit:.0f} {({86_400: 'd', 3_600: 'h', 60: 'min'})[unit]}"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def count(value: float | None) -> str:
    """Return a number in at most five columns: `12345`, `123k`, `12M`."""
    if value is None:
        return "-"
    if value < 100_000:
        return f"{value:.0f}"
    return f"{value / 1e3:.0f}k" if value < 999_500 else f"{value / 1e6:.0f}M"


def place(entry: Entry) -> str:
    """Return a function with its file: `app.report (app.py:31)`."""
    return f"{entry['function']} ({entry['file']})" if entry["file"] else str(entry["function"])


def short(function: str) -> str:
    """Return a function without its module's packages: `views.report` of `shop.web.views.report`."""
    parts = function.split(".")
    return ".".join(parts[-2:]) if len(parts) > 2 and "<" not in function else function


def whose(entry: Entry) -> str:
    """Return the worker and the loop of an entry."""
    worker = entry["worker"]
    return entry["loop"] if worker is None else f"{worker} {entry['loop']}".rstrip()
