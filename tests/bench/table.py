"""The table in BENCHMARKS.md: read it, write it, and find rows that have become worse."""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from tests.bench.sides import ROOT

PAGE = ROOT / "BENCHMARKS.md"
HEADING = "## Against the stock loop"
COLUMNS = ("stock µs", "compiled", "goal", "pure", "goal", "uvloop", "compiled, tuned malloc", "reason")
#: A row is worse only if its ratio is above the table's times this. Medians of seven on a shared machine were seen to
#: move by some 5 % from one hour to the next, and with the build of the interpreter by as much.
TOLERANCE = 1.10
#: The same for a quick run: medians of three short runs move by as much again.
QUICK_TOLERANCE = 1.20


def committed() -> dict[str, dict[str, float]]:
    """Return the committed ratios to the stock loop: row -> core -> ratio. A row begins with a work's name."""
    lines = _lines(PAGE.read_text(encoding="utf-8"))
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


def write(measured: Mapping[str, Any], page: str) -> str:
    """Return the page with these rows as its table. Reasons that stand beside a row stay."""
    old = _lines(page)
    have_reasons = _cells(old[0])[-1] == "reason"
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
    return page.replace("\n".join(old), "\n".join(lines))


def _lines(page: str) -> list[str]:
    """Return the lines of the first table under the heading."""
    rest = page[page.index(HEADING) :].splitlines()
    first = next(i for i, line in enumerate(rest) if line.startswith("|"))
    return list(takewhile(lambda line: line.startswith("|"), rest[first:]))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(row: Mapping[str, Any], side: str) -> str:
    return f"{row[side]['ratio']:.2f}" if side in row else ""


def _goal(row: Mapping[str, Any], core: str) -> str:
    return f"{row['goals'][core]:.2f}" if core in row["goals"] else ""
