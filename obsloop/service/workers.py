"""Make one report of the reports of all workers of a group. Each is asked for its own; a stuck one is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Any

from obsloop.group import ask, current
from obsloop.group.health import Health
from obsloop.group.membership import Member
from obsloop.service.asked import values
from obsloop.service.messages import Request
from obsloop.service.pages import clean
from obsloop.service.source import where

ASK_SECONDS = 0.5
Report = dict[str, Any]


def report(
    request: Request, path: str, own: Callable[[], Report], merge: Callable[[dict[int, Report]], Report]
) -> Report:
    """Return the group's report for `path`; with ``?worker=N`` that of one worker; without a group this process's own.

    `own` makes this process's report, `merge` makes one of several, by the workers' numbers.
    """
    member: Member | None = current.member
    if member is None:
        return own()
    healths = member.healths()
    wanted = wanted_worker(request)
    numbers = [number for number in healths if wanted is None or number == wanted]
    sockets = {number: there for number, there in member.others().items() if number in numbers}
    found: dict[int, Report] = {}
    for number, body in ask.ask(sockets, path, ASK_SECONDS).items():
        with suppress(ValueError):
            found[number] = json.loads(body)
    if member.number in numbers:
        found[member.number] = own()
    for number, each in found.items():
        _mark(each, number)
    result = merge(dict(sorted(found.items())))
    result["worker"] = wanted
    result["workers"] = [_worker(number, healths[number], number in found) for number in numbers]
    return result


def wanted_worker(request: Request) -> int | None:
    """Return the number in ``?worker=N``; None if there is none."""
    asked = values(request).get("worker", "") if "worker=" in request.query else ""
    return int(asked[:4]) if asked.isascii() and asked.isdigit() else None


def label(entry: Report) -> str:
    """Return the loop of an entry of a report, with its worker if there are several."""
    loop = entry["loop"] or ""
    return f"{loop}, worker {entry['worker']}" if "worker" in entry else loop


def stuck(result: Report) -> list[str]:
    """Return a sentence about each worker of which the report has nothing."""
    return [_sentence(worker) for worker in result.get("workers", ()) if not worker["answered"]]


def _sentence(worker: Report) -> str:
    who = f"Worker {worker['worker']} (process {worker['process']})"
    if worker["status"] != "stuck":
        return f"{who} did not answer in time; its metrics are missing here."
    by = "".join(
        f" It was blocked by {each['function']}{f' ({there})' if (there := each['file']) else ''}, {each['cause']}."
        for each in worker["blocked_by"]
    )
    return (
        f"{who} is stuck: silent for {worker['silent_seconds']:.1f} s, so it is stopped, or C code holds its GIL."
        f"{by} Its last metrics are in /metrics."
    )


def _mark(each: Report, number: int) -> None:
    """Write the worker's number into each entry of its report that has a loop."""
    lists: list[list[Any]] = [value for value in each.values() if isinstance(value, list)]
    for entry in chain.from_iterable(lists):
        if isinstance(entry, dict) and "loop" in entry:
            entry["worker"] = number


def _worker(number: int, state: Health, answered: bool) -> Report:
    status = "ok"
    if state.blocked:
        status = "stuck" if state.silent_ns else "blocked"
    return {
        "worker": number,
        "process": state.process,
        "status": status,
        "answered": answered,
        "silent_seconds": state.silent_ns / 1e9,
        "blocked_by": [
            {
                "function": clean(str(each.get("function", ""))),
                "file": where(str(each.get("file", "")), int(each.get("line", 0))),
                "cause": clean(str(each.get("cause", ""))),
            }
            for each in state.blocked_by
        ],
    }
