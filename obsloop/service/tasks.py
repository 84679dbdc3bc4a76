"""Answer /tasks: the live tasks of every running loop, and the last findings of the lints.

obsloop/tasks/census.py finds the tasks and their age; the lints are in obsloop/tasks/lints.
"""

import os
import time
from html import escape
from typing import Any

from obsloop.base import gc_pause
from obsloop.events import TaskLint
from obsloop.service import executors
from obsloop.service.messages import Request, Response
from obsloop.service.pages import answer, clean, moment, page, place, table, wants
from obsloop.tasks.census import TaskInfo, listing
from obsloop.tasks.lints import runner

KEPT_SECONDS = 1.0
KEPT_TIMES = 10
"""An answer is kept for so many times as long as it took to make, at most for ``KEPT_SECONDS``. Requests within that
time share it, so that any number of them uses at most a tenth of one core. A small program's listing is always new."""

_kept: dict[str, tuple[int, float, Response]] = {}
"""Format -> the process, until when the answer is kept, and the answer, as bytes: nothing for the garbage collector."""


def tasks(request: Request) -> Response:
    """Return the live tasks and where they wait, as JSON or as a page, the oldest first."""
    wanted = wants(request)
    kept = _kept.get(wanted)
    began = time.monotonic()
    if kept is not None and kept[0] == os.getpid() and began < kept[1]:
        return kept[2]
    with gc_pause.held:
        response = answer(request, report(), _page)
    ended = time.monotonic()
    if response.status == 200:
        _kept[wanted] = os.getpid(), ended + min(KEPT_SECONDS, KEPT_TIMES * (ended - began)), response
    return response


def report() -> dict[str, Any]:
    """Return the live tasks and the findings for JSON."""
    found, kept = listing(), runner.kept()
    return {
        "process": os.getpid(),
        "taken_at": moment(time.time()),
        "not_shown": found.not_shown,
        "unseen": found.unseen,
        "not_looked_at": found.not_looked_at,
        "tasks": [_shape(task) for task in gc_pause.breathing(found.tasks)],
        "executors": executors.report(),
        "older_lints": kept.older,
        "lints": [_finding(event) for event in kept.events],
    }


def _shape(task: TaskInfo) -> dict[str, Any]:
    return {
        "loop": None if task.loop_name is None else clean(task.loop_name),
        "name": clean(task.name),
        "coroutine": clean(task.coroutine),
        "state": task.state,
        "cancelling": task.cancelling,
        "waits_for": None if task.waits_for is None else clean(task.waits_for),
        "at": place(task.filename, task.lineno),
        "in": clean(task.function),
        "age_seconds": task.age,
        "age_resolution_seconds": task.age_resolution,
    }


def _finding(event: TaskLint) -> dict[str, Any]:
    return {
        "lint": event.lint,
        "loop": clean(event.loop_name),
        "name": clean(event.name),
        "file": place(event.filename, event.lineno),
        "task": None if event.task_name is None else clean(event.task_name),
        "message": clean(event.message),
        "count": event.count,
        "first_seen": moment(event.started_at),
        "last_seen": moment(event.last_seen),
        "detail": clean(event.detail),
    }


def _page(report: dict[str, Any]) -> Response:
    head = ("loop", "task", "coroutine", "state", "at", "in", "seen for")
    rows = [
        (
            escape(task["loop"] or ""),
            escape(task["name"]),
            escape(task["coroutine"]),
            escape(_state(task)),
            escape(task["at"] or ""),
            escape(task["in"]),
            _age(task),
        )
        for task in gc_pause.breathing(report["tasks"])
    ]
    taken = f"<p>Taken at {escape(report['taken_at'] or '')}.</p>"
    shown = taken + table(head, rows) if rows else "<p>No observed loop runs, or none has a task.</p>"
    more = f"<p>And {report['not_shown']} more.</p>" if report["not_shown"] else ""
    if report["not_looked_at"]:
        more += f"<p>{report['not_looked_at']} of them were counted but not examined; some may be done.</p>"
    return page("Tasks", shown + more + executors.html(report["executors"]) + _findings(report))


def _findings(report: dict[str, Any]) -> str:
    """Return the findings of the lints as HTML, newest first; empty without findings."""
    if not report["lints"]:
        return ""
    head = ("when", "loop", "lint", "coroutine", "defined at", "what is wrong", "tasks", "")
    rows = [
        (
            escape(event["last_seen"] or ""),
            escape(event["loop"]),
            escape(event["lint"].replace("_", " ")),
            escape(" ".join(filter(None, (event["name"], event["task"] and f"({event['task']})")))),
            escape(event["file"] or ""),
            escape(event["message"]),
            str(event["count"]),
            escape(event["detail"]),
        )
        for event in report["lints"]
    ]
    older = f"<p>And {report['older_lints']} before these, no longer kept.</p>" if report["older_lints"] else ""
    return f"<h2>What is wrong with tasks</h2>\n{table(head, rows)}{older}"


def _state(task: dict[str, Any]) -> str:
    waits_for = f" for {task['waits_for']}" if task["waits_for"] else ""
    return f"{task['state']}{waits_for}{', cancelling' if task['cancelling'] else ''}"


def _age(task: dict[str, Any]) -> str:
    """Return the range in seconds in which the task's age lies."""
    least, resolution = task["age_seconds"], task["age_resolution_seconds"]
    if resolution is None:
        return f"{least:.1f} s or more"
    return f"{least:.1f} to {least + resolution:.1f} s"
