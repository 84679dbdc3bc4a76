"""Answer /tasks: the live tasks of every running loop, and the last findings of the lints.

obsloop/tasks/census.py finds the tasks and their age; the lints are in obsloop/tasks/lints.
"""

import os
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from obsloop.base import gc_pause
from obsloop.events import TaskLint
from obsloop.service import executors, merging, source, text, waits, workers
from obsloop.service.messages import Request, Response
from obsloop.service.pages import answer, clean, moment, page, place, table, wants, who
from obsloop.tasks.census import MAX_SHOWN, listing
from obsloop.tasks.describing import TaskInfo
from obsloop.tasks.lints import runner

KEPT_SECONDS = 1.0
KEPT_TIMES = 10
"""An answer is kept for so many times as long as it took to make, at most for ``KEPT_SECONDS``. Requests within that
time share it, so that any number of them uses at most a tenth of one core. A small program's listing is always new."""

MAX_GROUPS = 200
MAX_LINTS = 100
"""Of several workers."""
MAX_KEPT = 12

_kept: dict[tuple[str, int | None], tuple[int, float, Response]] = {}
"""Format and worker -> the process, until when the answer is kept, and the answer, as bytes: nothing for the garbage
collector."""


def tasks(request: Request) -> Response:
    """Return the live tasks and where they wait, as JSON, as a page or as text, the oldest first."""
    wanted = wants(request), workers.wanted_worker(request)
    kept = _kept.get(wanted)
    began = time.monotonic()
    if kept is not None and kept[0] == os.getpid() and began < kept[1]:
        return kept[2]
    with gc_pause.held:
        found = workers.report(request, "/tasks", report, _merged)
        response = answer(request, found, lambda found: _page(request, found), _text)
    ended = time.monotonic()
    if response.status == 200:
        if len(_kept) >= MAX_KEPT:
            _kept.clear()
        _kept[wanted] = os.getpid(), ended + min(KEPT_SECONDS, KEPT_TIMES * (ended - began)), response
    return response


def report() -> dict[str, Any]:
    """Return the live tasks and the findings for JSON."""
    found, kept = listing(), runner.kept()
    groups = _groups(found.tasks)
    connected = found.waits
    return {
        "process": os.getpid(),
        "taken_at": moment(time.time()),
        "not_shown": found.not_shown,
        "unseen": found.unseen,
        "not_looked_at": found.not_looked_at,
        "tasks": [
            {**_shape(task), "id": i, "awaits": connected.awaits[i]}
            for i, task in enumerate(gc_pause.breathing(found.tasks))
        ],
        "awaited_not_listed": connected.not_listed,
        **waits.report(found.tasks, connected),
        "groups": groups[:MAX_GROUPS],
        "groups_left_out": max(0, len(groups) - MAX_GROUPS),
        "executors": executors.report(),
        "older_lints": kept.older,
        "lints": [_finding(event) for event in kept.events],
    }


def _merged(reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return one report of those of several workers."""
    found = reports.values()
    listed = sorted(merging.joined(found, "tasks"), key=lambda task: -task["age_seconds"])
    groups = merging.task_groups(merging.joined(found, "groups"))
    lints = sorted(merging.joined(found, "lints"), key=lambda lint: lint["last_seen"] or "", reverse=True)
    return {
        "process": os.getpid(),
        "taken_at": moment(time.time()),
        **{name: merging.total(found, name) for name in ("unseen", "not_looked_at")},
        "not_shown": merging.total(found, "not_shown") + max(0, len(listed) - MAX_SHOWN),
        "tasks": listed[:MAX_SHOWN],
        "groups": groups[:MAX_GROUPS],
        "groups_left_out": merging.total(found, "groups_left_out") + max(0, len(groups) - MAX_GROUPS),
        "awaited_not_listed": merging.total(found, "awaited_not_listed"),
        **waits.merged(found),
        "executors": merging.joined(found, "executors"),
        "older_lints": merging.total(found, "older_lints") + max(0, len(lints) - MAX_LINTS),
        "lints": lints[:MAX_LINTS],
    }


def _shape(task: TaskInfo) -> dict[str, Any]:
    return {
        "loop": None if task.loop_name is None else clean(task.loop_name),
        "name": clean(task.name),
        "coroutine": clean(task.coroutine),
        "state": task.state,
        "cancelling": task.cancelling,
        "waits_for": None if task.waits_for is None else clean(task.waits_for),
        "waiting_on": None if task.waiting_on is None else clean(task.waiting_on),
        "waiting_seconds": task.waiting,
        "waiting_resolution_seconds": task.waiting_resolution,
        "at": place(task.filename, task.lineno),
        "in": clean(task.function),
        "own_at": place(task.place_filename, task.place_lineno),
        "own_in": clean(task.place_function) or None,
        "created_at": None if task.created_at is None else place(*task.created_at[:2]),
        "created_in": None if task.created_at is None else clean(task.created_at[2]),
        "created_by": None if task.created_by is None else clean(task.created_by),
        "cancelled": None if task.cancelled is None else waits.cancellation(task.cancelled),
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


def _groups(tasks: Sequence[TaskInfo]) -> list[dict[str, Any]]:
    """Return the tasks grouped by coroutine and by the program's own line where they wait, the oldest group first."""
    groups: dict[tuple[str | None, str, str, int], dict[str, Any]] = {}
    for task in gc_pause.breathing(tasks):
        filename, lineno, function = task.filename, task.lineno, task.function
        if task.place_filename:
            filename, lineno, function = task.place_filename, task.place_lineno, task.place_function
        group = groups.setdefault((task.loop_name, task.coroutine, filename, lineno), {
            "loop": None if task.loop_name is None else clean(task.loop_name),
            "coroutine": clean(task.coroutine),
            "at": source.where(filename, lineno) or None,
            "in": clean(function),
            "own": task.place_own,
            "source": source.line(filename, lineno) or None if task.place_own else None,
            "tasks": 0,
            "oldest_seconds": task.age,
            "oldest_task": clean(task.name),
            "states": {},
        })  # fmt: skip
        group["tasks"] += 1
        if task.age > group["oldest_seconds"]:
            group["oldest_seconds"], group["oldest_task"] = task.age, clean(task.name)
        state = f"waiting for {waits.kind(task)}" if task.waits_for else task.state
        group["states"][clean(state)] = group["states"].get(clean(state), 0) + 1
    return sorted(groups.values(), key=lambda group: -group["oldest_seconds"])


def _page(request: Request, report: dict[str, Any]) -> Response:
    groups = [
        (
            f"<b>{escape(group['coroutine'])}</b><br>{escape(group['at'] or '')} in {escape(group['in'])}"
            + (f" <code>{escape(group['source'])}</code>" if group["source"] else ""),
            str(group["tasks"]),
            text.seconds(group["oldest_seconds"]),
            escape(_states(group)),
            escape(workers.label(group)),
            escape(group["oldest_task"]),
        )
        for group in gc_pause.breathing(report["groups"])
    ]
    head = ("coroutine, and where it waits", "tasks", "oldest", "state", "loop", "oldest task")
    parts = [f'<p class="alarm">{escape(line)}</p>' for line in workers.stuck(report)]
    parts += [f'<p class="alarm">{escape(line)}</p>' for line in waits.circles(report)]
    parts += [_findings(report), executors.html(report["executors"]), waits.locks_html(report)]
    parts.append(f"<h2>Tasks</h2>\n<p>Taken at {escape(report['taken_at'] or '')}.</p>")
    if groups:
        parts.append(table(head, groups, numbers=(1, 2)))
    else:
        parts.append("<p>No observed loop runs, or none has a task.</p>")
    if report["groups_left_out"]:
        parts.append(f"<p>And {report['groups_left_out']} more groups.</p>")
    if report["not_shown"]:
        parts.append(f"<p>And {report['not_shown']} more.</p>")
    if report["not_looked_at"]:
        parts.append(f"<p>{report['not_looked_at']} of them were counted but not examined; some may be done.</p>")
    parts += [waits.tree_html(report), waits.cancellations_html(report)]
    if groups:
        parts.append(f"<details><summary>Each of these {len(report['tasks'])} tasks</summary>{_each(report)}</details>")
    return page(request, "obsloop: tasks", "\n".join(filter(None, parts)), whose=who(report))


def _each(report: dict[str, Any]) -> str:
    head = ("task", "coroutine", "state", "at", "in", "seen for", "loop", "created, cancelled")
    rows = [
        (
            escape(task["name"]),
            escape(task["coroutine"]),
            escape(_state(task)),
            escape(task["at"] or ""),
            escape(task["in"]),
            _age(task),
            escape(workers.label(task)),
            escape(waits.origin(task)),
        )
        for task in gc_pause.breathing(report["tasks"])
    ]
    return table(head, rows)


def _states(group: dict[str, Any]) -> str:
    """Return the states of a group's tasks, with their numbers if they differ."""
    states = group["states"]
    return next(iter(states)) if len(states) == 1 else ", ".join(f"{n} {state}" for state, n in states.items())


def _text(report: dict[str, Any]) -> str:
    missing = [line for each in workers.stuck(report) for line in text.wrapped(each)]
    lints = [
        line
        for event in report["lints"]
        for line in text.wrapped(
            f"{event['name']} {event['message']}; last seen {_time(event['last_seen'])} UTC, "
            f"loop {workers.label(event)}"
        )
    ]
    pools = [text.cut(line) for line in executors.text(report["executors"]).splitlines()]
    head = ("tasks", "oldest", "state", "where", "coroutine")
    rows = [
        (
            str(group["tasks"]),
            text.seconds(group["oldest_seconds"]),
            _states(group),
            group["at"] or "",
            group["coroutine"],
        )
        for group in report["groups"]
    ]
    tasks = text.table(head, rows, right="01", ends="34") if rows else ["no observed loop runs, or none has a task"]
    counts = ((report["groups_left_out"], "more groups"), (report["not_shown"], "more tasks"))
    return text.joined(
        missing,
        [line for each in waits.circles(report) for line in text.wrapped(each)],
        ["What is wrong with tasks", *lints] if lints else [],
        ["Executors", *pools] if pools else [],
        [f"Tasks, taken at {report['taken_at']}", *tasks, *(f"and {n} {what}" for n, what in counts if n)],
        waits.locks_text(report),
        waits.tree_text(report),
        waits.cancellations_text(report),
    )


def _findings(report: dict[str, Any]) -> str:
    """Return the findings of the lints as HTML, newest first; empty without findings."""
    if not report["lints"]:
        return ""
    head = ("what is wrong", "tasks", "last seen (UTC)", "lint", "loop", "")
    rows = [
        (
            f"<b>{escape(_whose(event))}</b> {escape(event['message'])}"
            f"<br><small>{escape(event['file'] or '')}</small>",
            str(event["count"]),
            _time(event["last_seen"]),
            escape(event["lint"].replace("_", " ")),
            escape(workers.label(event)),
            escape(event["detail"]),
        )
        for event in report["lints"]
    ]
    older = f"<p>And {report['older_lints']} before these, no longer kept.</p>" if report["older_lints"] else ""
    return f"<h2>What is wrong with tasks</h2>\n{table(head, rows, numbers=(1,))}{older}"


def _time(moment: str | None) -> str:
    """Return the time of day of a moment of the report."""
    return escape((moment or "")[11:19])


def _whose(event: dict[str, Any]) -> str:
    return " ".join(filter(None, (event["name"], event["task"] and f"({event['task']})")))


def _state(task: dict[str, Any]) -> str:
    waits_for = f" for {task['waiting_on'] or task['waits_for']}" if task["waits_for"] else ""
    return f"{task['state']}{waits_for}{', cancelling' if task['cancelling'] else ''}"


def _age(task: dict[str, Any]) -> str:
    """Return the range in seconds in which the task's age lies."""
    least, resolution = task["age_seconds"], task["age_resolution_seconds"]
    if resolution is None:
        return f"{least:.1f} s or more"
    return f"{least:.1f} to {least + resolution:.1f} s"
