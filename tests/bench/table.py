"""The tables in BENCHMARKS.md, one for each interpreter: read and write them, and find rows that have become worse."""

import re
import sys
from collections.abc import Mapping
from itertools import dropwhile, takewhile
from typing import Any

from tests.bench.sides import ROOT

PAGE = ROOT / "BENCHMARKS.md"
HEADING = "## Against the stock loop"
#: Under it, each interpreter's table has a heading of its own.
OWN = "### CPython {}.{}".format(*sys.version_info)
COLUMNS = ("stock µs", "compiled", "goal", "pure", "goal", "uvloop", "compiled, tuned malloc", "reason")
#: A row is worse only if its ratio is above the table's times this. Medians of seven on a shared machine were seen to
#: move by some 5 % from one hour to the next, and with the build of the interpreter by as much.
TOLERANCE = 1.10
#: The same for a quick run: medians of three short runs move by as much again.
QUICK_TOLERANCE = 1.20


def committed() -> dict[str, dict[str, float]]:
    """Return this interpreter's committed ratios to the stock loop: row -> core -> ratio; empty without a table.

    A row begins with a work's name.
    """
    lines = _lines(PAGE.read_text(encoding="utf-8"), OWN)
    if not lines:
        return {}
    rows = {}
    for name, *values in map(_cells, lines[2:]):
        ratios = dict(zip(_cells(lines[0])[1:], values, strict=True))
        rows[name] = {core: float(ratios[core]) for core in ("compiled", "pure") if ratios.get(core)}
    return rows


def ratios_of(work: str, rows: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """Return the committed ratios of `work`; empty if the table does not have it."""
    name = work.replace(" us", " µs")
    return next((ratios for row, ratios in rows.items() if row == name or row.startswith(f"{name} (")), {})


def worse(measured: Mapping[str, Any], rows: Mapping[str, dict[str, float]], tolerance: float) -> list[str]:
    """Return a line for each measured ratio that is above the committed one by more than the tolerance."""
    return [
        f"{work} ({core}): {row[core]['ratio']:.2f}, in the table {before:.2f}"
        for work, row in measured.items()
        for core, before in ratios_of(work, rows).items()
        if core in row and row[core]["ratio"] > before * tolerance
    ]


def write(measured: Mapping[str, Any], page: str, heading: str | None = None) -> str:
    """Return the page with these rows as the table under ``heading``. Reasons that stand beside a row stay."""
    heading = heading or OWN
    old = _lines(page, heading)
    have_reasons = bool(old) and _cells(old[0])[-1] == "reason"
    reasons = {cells[0]: cells[-1] for cells in map(_cells, old[2:])} if have_reasons else {}
    lines = [_line("work (one operation)", *COLUMNS), "|" + "---|" * (len(COLUMNS) + 1)]
    for work, row in measured.items():
        name = work.replace(" us", " µs")
        lines.append(
            _line(
                name,
                f"{row['stock_ns'] / 1000:.2f}",
                *(cell for core in ("compiled", "pure") for cell in (_ratio(row, core), _goal(row, core))),
                _ratio(row, "uvloop"),
                _ratio(row, "tuned"),
                reasons.get(name, ""),
            )
        )
    if old:
        return page.replace("\n".join(old), "\n".join(lines))
    # A new section: before that of the next newer interpreter, or before the next part of the page.
    begin = page.index(HEADING) + len(HEADING)
    later = (found.start() for found in re.finditer("^##.*", page[begin:], re.M) if _is_after(found[0], heading))
    place = begin + next(later, len(page) - begin)
    section = "\n".join([heading, "", *lines])
    return f"{page[:place]}{section}\n\n{page[place:]}"


def _is_after(found: str, heading: str) -> bool:
    return not found.startswith("###") or _minor(found) > _minor(heading)


def _minor(heading: str) -> int:
    return int(heading.rpartition(".")[2])


def _lines(page: str, heading: str) -> list[str]:
    """Return the lines of the first table under the heading; none without such a heading."""
    lines = iter(page.splitlines())
    if heading not in lines:  # this leaves what follows the heading
        return []
    return list(takewhile(lambda line: line[:1] == "|", dropwhile(lambda line: line[:1] != "|", lines)))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(row: Mapping[str, Any], side: str) -> str:
    return f"{row[side]['ratio']:.2f}" if side in row else ""


def _goal(row: Mapping[str, Any], core: str) -> str:
    return f"{row['goals'][core]:.2f}" if core in row["goals"] else ""
