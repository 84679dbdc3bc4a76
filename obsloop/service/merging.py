"""Add the reports of several workers up: the culprits of blocks, and groups of tasks. Everything else is listed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from obsloop.service.culprits import MAX_LINES

Report = dict[str, Any]


def joined(reports: Iterable[Report], key: str) -> list[Any]:
    """Return the entries of all reports under `key`."""
    return [entry for report in reports for entry in report.get(key, ())]


def total(reports: Iterable[Report], key: str) -> int:
    """Return the sum of the numbers of all reports under `key`."""
    return sum(report.get(key, 0) for report in reports)


def culprits(found: Iterable[Report], first_window: str = "5m") -> list[Report]:
    """Return the culprits of all workers, each once, the one with most seconds in `first_window` first."""
    merged: dict[tuple[Any, ...], Report] = {}
    for entry in found:
        key = entry["loop"], entry["function"], (entry["file"] or "").rpartition(":")[0]
        known = merged.get(key)
        merged[key] = _without_worker(entry) if known is None else _culprit(known, entry)
    return sorted(
        merged.values(),
        key=lambda entry: (entry["windows"][first_window]["seconds"], entry["worst_seconds"]),
        reverse=True,
    )


def task_groups(found: Iterable[Report]) -> list[Report]:
    """Return the groups of tasks of all workers, each once, the oldest first."""
    merged: dict[tuple[Any, ...], Report] = {}
    for entry in found:
        key = entry["loop"], entry["coroutine"], entry["at"], entry["in"]
        known = merged.get(key)
        if known is None:
            merged[key] = _without_worker(entry)
            continue
        old, new = sorted((known, entry), key=lambda each: -each["oldest_seconds"])
        states = dict(known["states"])
        for state, n in entry["states"].items():
            states[state] = states.get(state, 0) + n
        merged[key] = {
            **known,
            "tasks": known["tasks"] + entry["tasks"],
            "oldest_seconds": old["oldest_seconds"],
            "oldest_task": old["oldest_task"],
            "source": old["source"] or new["source"],
            "states": states,
        }
    return sorted(merged.values(), key=lambda group: -group["oldest_seconds"])


def _culprit(one: Report, other: Report) -> Report:
    newer = min(one, other, key=lambda entry: entry["last_seconds_ago"])
    causes = dict(one["causes"])
    for cause, seconds in other["causes"].items():
        causes[cause] = causes.get(cause, 0.0) + seconds
    lines: dict[Any, Report] = {line["file"]: line for line in one["lines"]}
    for line in other["lines"]:
        known = lines.get(line["file"])
        lines[line["file"]] = line if known is None else {**line, **_sum(known, line)}
    ranked = sorted(lines.values(), key=lambda line: -line["seconds"])
    left_out = one["lines_left_out"] + other["lines_left_out"] + max(0, len(ranked) - MAX_LINES)
    return {
        **_without_worker(newer),
        "file": ranked[0]["file"] if ranked else newer["file"],
        "seen": one["seen"] or other["seen"],
        "cause": max(causes, key=lambda cause: causes[cause], default=newer["cause"]),
        "windows": {name: _sum(window, other["windows"][name]) for name, window in one["windows"].items()},
        "worst_seconds": max(one["worst_seconds"], other["worst_seconds"]),
        "causes": causes,
        "lines": ranked[:MAX_LINES],
        "lines_left_out": left_out,
        "stack": newer["stack"] or one["stack"] or other["stack"],
    }


def _sum(one: Report, other: Report) -> Report:
    return {
        "seconds": one["seconds"] + other["seconds"],
        "blocks": one["blocks"] + other["blocks"],
        "worst_seconds": max(one["worst_seconds"], other["worst_seconds"]),
    }


def _without_worker(entry: Report) -> Report:
    return {name: value for name, value in entry.items() if name != "worker"}
