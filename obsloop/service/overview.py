"""Answer `/`: is a loop blocked, how much, and by which lines? The page refreshes itself."""

import os
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from obsloop.base import clock
from obsloop.blocking import totals
from obsloop.metrics.snapshot import Histogram, Snapshot
from obsloop.probes.collect import snapshots
from obsloop.service import blocks, culprits, executors, history, merging, source, text, workers
from obsloop.service.history import Point, Rates
from obsloop.service.messages import Request, Response
from obsloop.service.pages import answer, clean, moment, page, table, wants, who
from obsloop.tasks.lints import runner

MAX_CULPRITS = 10
MAX_BLOCKED = 10
MAX_LINTS = 5
MAX_LOOPS = 64
"""Of several workers."""
MAX_EXECUTORS = 10
CULPRIT_WINDOWS = ("5m", "1h")
KEPT_SECONDS = 0.5
KEPT_TIMES = 10
"""An answer is kept for so many times as long as it took to make, at most for `KEPT_SECONDS`."""

_ROWS = (
    ("time blocked", "blocked_share", 0.05, (0.01, 0.1)),
    ("lag p99", "lag_p99_seconds", 0.01, (0.1, 0.5)),
    ("utilization", "utilization", 0.2, (0.8, 0.95)),
)
"""What a person reads, the key, what fills a chart at least, and from where on a value is in the colours of alarm."""

_SHOWN = ("1m", "5m")
"""The windows that a page shows; the shortest one is for programs that ask again and again."""

_answers: dict[tuple[str, frozenset[str], int | None], tuple[int, float, Response]] = {}
"""Format, served paths and worker -> the process, until when the answer is kept, and the answer."""


def overview(request: Request) -> Response:
    """Return the overview as JSON, as a page or as text."""
    key = wants(request), request.served, workers.wanted_worker(request)
    old = _answers.get(key)
    began = clock.seconds()
    if old is not None and old[0] == os.getpid() and began < old[1]:
        return old[2]
    served = request.served
    found = workers.report(request, "/", lambda: report(served), lambda reports: _merged(reports, served))
    response = answer(request, found, lambda found: _page(request, found), _text)
    ended = clock.seconds()
    if response.status == 200:
        if len(_answers) >= 32:  # three formats for each address
            _answers.clear()
        _answers[key] = os.getpid(), ended + min(KEPT_SECONDS, KEPT_TIMES * (ended - began)), response
    return response


def report(served: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the overview for JSON. What /slow and /tasks would show is left out where they are not `served`."""
    found = snapshots()
    loops = [_loop(name, point, found[name]) for name, point in history.points_of(found).items()]
    loops = [loop for loop in loops if loop["running"] or loop["windows"]["5m"]["utilization"] is not None]
    loops.sort(key=lambda loop: (loop["blocked_seconds"], loop["windows"]["5m"]["blocked_share"] or 0.0), reverse=True)
    shown: dict[str, Any] = {
        "process": os.getpid(),
        "taken_at": moment(time.time()),
        "loops": loops[: history.MAX_LOOPS],
        "loops_left_out": max(0, len(loops) - history.MAX_LOOPS),
    }
    if not served or "/slow" in served:
        sums = totals.totals()
        shown["blocked_now"] = blocks.lasting(found, MAX_BLOCKED)
        last = blocks.last()
        for loop in shown["loops"]:
            loop["last_block"] = last.get(loop["loop"])
        shown["culprits"] = culprits.report(sums, MAX_CULPRITS)
        shown["culprits_left_out"] = max(0, len(sums.groups) - MAX_CULPRITS)
    if not served or "/tasks" in served:
        findings = runner.kept()
        shown["lints"] = [
            {
                "lint": event.lint,
                "loop": clean(event.loop_name),
                "name": clean(event.name),
                "file": source.where(event.filename, event.lineno) or None,
                "message": clean(event.message),
                "count": event.count,
                "last_seconds_ago": max(0.0, time.time() - event.last_seen),
            }
            for event in findings.events[:MAX_LINTS]
        ]
        shown["lints_left_out"] = findings.older + max(0, len(findings.events) - MAX_LINTS)
        pools = executors.report()
        shown["executors"] = pools[:MAX_EXECUTORS]
        shown["executors_left_out"] = max(0, len(pools) - MAX_EXECUTORS)
    return shown


def _merged(reports: dict[int, dict[str, Any]], served: frozenset[str]) -> dict[str, Any]:
    """Return one report of those of several workers."""
    found = reports.values()
    loops = merging.joined(found, "loops")
    shown: dict[str, Any] = {
        "process": os.getpid(),
        "taken_at": moment(time.time()),
        "loops": loops[:MAX_LOOPS],
        "loops_left_out": merging.total(found, "loops_left_out") + max(0, len(loops) - MAX_LOOPS),
    }
    if not served or "/slow" in served:
        named = merging.culprits(merging.joined(found, "culprits"))
        blocked = sorted(merging.joined(found, "blocked_now"), key=lambda block: -block["seconds"])
        shown["blocked_now"] = blocked[:MAX_BLOCKED]
        shown["culprits"] = named[:MAX_CULPRITS]
        shown["culprits_left_out"] = merging.total(found, "culprits_left_out") + max(0, len(named) - MAX_CULPRITS)
    if not served or "/tasks" in served:
        lints = sorted(merging.joined(found, "lints"), key=lambda lint: lint["last_seconds_ago"])
        pools = sorted(merging.joined(found, "executors"), key=lambda entry: -entry["longest_wait_seconds"])
        shown["lints"] = lints[:MAX_LINTS]
        shown["lints_left_out"] = merging.total(found, "lints_left_out") + max(0, len(lints) - MAX_LINTS)
        shown["executors"] = pools[:MAX_EXECUTORS]
        shown["executors_left_out"] = merging.total(found, "executors_left_out") + max(0, len(pools) - MAX_EXECUTORS)
    return shown


def _loop(name: str, now: Point, snapshot: Snapshot) -> dict[str, Any]:
    found = history.points(name, now)
    steps = history.line(found)
    return {
        "loop": clean(name),
        "running": snapshot.running,
        "uvloop": snapshot.partial,
        "blocked_seconds": snapshot.blocked_time,
        "tasks": _sum(snapshot, "asyncio.task.active"),
        "queued_jobs": _sum(snapshot, "asyncio.executor.queue.length"),
        "windows": {window: _rates(history.over(found, length)) for window, length in history.WINDOWS.items()},
        "steps": {
            "step_seconds": history.STEP_SECONDS,
            "blocked_share": [step.blocked_share for step in steps],
            "lag_p99_seconds": [step.lag_p99 for step in steps],
            "utilization": [step.utilization for step in steps],
        },
    }


def _sum(snapshot: Snapshot, metric: str) -> int | None:
    """Return the sum of a metric's points; None if the loop does not measure it."""
    points = snapshot.data.get(metric)
    return None if points is None else int(sum(value for value in points.values() if not isinstance(value, Histogram)))


def _rates(rates: Rates) -> dict[str, Any]:
    return {
        "seconds": rates.seconds,
        "blocked_share": rates.blocked_share,
        "lag_p99_seconds": rates.lag_p99,
        "utilization": rates.utilization,
        "iterations_per_second": rates.iterations,
    }


# As a page


def _page(request: Request, found: dict[str, Any]) -> Response:
    parts = [f'<p class="alarm">{escape(line)}</p>' for line in workers.stuck(found)]
    for block in found.get("blocked_now", ()):
        key = escape(f"now {workers.label(block)}")
        what = (
            f'<b class="bad">Blocked now</b>, for {text.seconds(block["seconds"])}: '
            f"loop {escape(workers.label(block))} by "
            f"<b>{escape(block['function'])}</b> {escape(block['file'] or '')}, {escape(text.cause(block['cause']))}"
        )
        stack = culprits.stack_html(block["stack"])
        inside = f'<details data-key="{key}"><summary>{what}</summary>{stack}</details>' if stack else what
        parts.append(f'<div class="alarm">{inside}</div>')
    if not found["loops"]:
        parts.append("<p>No observed loop runs.</p>")
    several = len(found["loops"]) > 1 and "workers" in found
    parts += [_loops_html(found["loops"])] if several else [_loop_html(loop) for loop in found["loops"][:1]]
    if "culprits" in found:
        parts.append("<h2>Top culprits</h2>")
        if found["culprits"]:
            parts.append(culprits.html(found["culprits"], CULPRIT_WINDOWS))
        else:
            parts.append("<p>Nothing has blocked a loop in the last 24 hours, or since the process began.</p>")
        if found["culprits_left_out"]:
            parts.append(f'<p><a href="/slow">{found["culprits_left_out"]} more</a></p>')
    parts += [] if several else [_loop_html(loop) for loop in found["loops"][1:]]
    if found["loops_left_out"]:
        parts.append(f"<p>And {found['loops_left_out']} more loops.</p>")
    if found.get("lints"):
        items = "\n".join(f"<li>{escape(_lint(lint))}</li>" for lint in found["lints"])
        more = found["lints_left_out"]
        rest = f'\n<p><a href="/tasks">{more} more</a></p>' if more else ""
        parts.append(f"<h2>Lints: tasks with something wrong</h2>\n<ul>\n{items}\n</ul>{rest}")
    parts.append(executors.html(found.get("executors", [])))
    return page(request, "obsloop", "\n".join(filter(None, parts)), live=True, whose=who(found))


def _loops_html(loops: Sequence[dict[str, Any]]) -> str:
    """Return a table with a row for each loop of each worker: its last minute, and a line of five minutes."""
    head = ("worker", *(label for label, *_ in _ROWS))
    rows = [
        (
            f'<a href="/?worker={loop["worker"]}">{loop["worker"]}</a> <span class="dim">{escape(loop["loop"])}</span>',
            *(
                f"<span{_alarm(minute[key], alarms)}><b>{_value(key, minute[key])}</b></span> "
                f"{_chart(loop['steps'][key], least, f'{label}, 5m')}"
                for label, key, least, alarms in _ROWS
            ),
        )
        for loop in loops
        for minute in (loop["windows"]["1m"],)
    ]
    title = '<h2>Workers <span class="dim">last minute; the lines show five minutes</span></h2>'
    return f"{title}\n{table(head, rows)}"


_UVLOOP = "uvloop's own loop: callbacks, finished tasks and connections are not measured."


def _loop_html(loop: dict[str, Any]) -> str:
    minute, minutes = (loop["windows"][name] for name in _SHOWN)
    rows = [
        f'<tr><th scope="row">{label}</th>'
        + "".join(
            f"<td{_alarm(window[key], alarms)}><b>{_value(key, window[key])}</b> "
            f"{_chart(_tail(loop['steps'][key], name), least, f'{label}, {name}')}</td>"
            for name, window in (("1m", minute), ("5m", minutes))
        )
        + "</tr>"
        for label, key, least, alarms in _ROWS
    ]
    stopped = "" if loop["running"] else ' <span class="dim">(not running)</span>'
    head = f"<tr><th></th><th>last {_length(minute, 60)}</th><th>last {_length(minutes, 300)}</th></tr>"
    lines = [f"<h2>Loop {escape(workers.label(loop))}{stopped}</h2>", '<table class="rates">', head, *rows, "</table>"]
    if loop.get("uvloop"):
        lines.insert(1, f'<p class="dim">{_UVLOOP}</p>')
    return "\n".join(lines)


def _tail(values: Sequence[float | None], window: str) -> Sequence[float | None]:
    n = round(history.WINDOWS[window] / history.STEP_SECONDS) + 1  # the last step is the one that has just begun
    return values[-n:]


def _length(window: dict[str, Any], full: int) -> str:
    """Return the window's length, which is shorter while the process is young."""
    covered = window["seconds"]
    if covered < full * 0.9:
        return f"{covered:.0f} s"
    return "minute" if full == 60 else f"{full // 60} min"


def _value(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return text.seconds(value) if key.endswith("_seconds") else text.percent(value)


def _alarm(value: float | None, alarms: tuple[float, float]) -> str:
    if value is None or value < alarms[0]:
        return ""
    return ' class="bad"' if value >= alarms[1] else ' class="warn"'


def _chart(values: Sequence[float | None], least: float, label: str) -> str:
    """Return a small line as SVG, from left to right."""
    if len(values) < 2 or all(value is None for value in values):
        return ""
    top = max([least, *(value for value in values if value is not None)])
    step = 100 / (len(values) - 1)
    dots = [f"{i * step:.1f},{23 - 22 * (value or 0.0) / top:.1f}" for i, value in enumerate(values)]
    return (
        f'<svg viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<polygon points="0,24 {" ".join(dots)} 100,24"/><polyline points="{" ".join(dots)}"/></svg>'
    )


def _lint(lint: dict[str, Any]) -> str:
    where = f" ({lint['file']})" if lint["file"] else ""
    return (
        f"{lint['name']}{where} {lint['message']}; last seen {text.ago(lint['last_seconds_ago'])}, "
        f"loop {workers.label(lint)}"
    )


# As text


def _text(found: dict[str, Any]) -> str:
    blocked = [line for each in workers.stuck(found) for line in text.wrapped(each)]
    for block in found.get("blocked_now", ()):
        where = f" ({block['file']})" if block["file"] else ""
        blocked.append(
            text.cut(
                f"BLOCKED NOW for {text.seconds(block['seconds'])}: loop {workers.label(block)} by "
                f"{block['function']}{where}, {text.cause(block['cause'])}"
            )
        )
        blocked += text.indented(source.lines(block["stack"]))
    names: list[str] = []
    if "culprits" in found:
        names = ["Top culprits"]
        names += (
            culprits.lines(found["culprits"], CULPRIT_WINDOWS) if found["culprits"] else ["nothing has blocked a loop"]
        )
        if found["culprits_left_out"]:
            names.append(f"and {found['culprits_left_out']} more, see /slow")
    lints = [line for lint in found.get("lints", ()) for line in text.wrapped(_lint(lint))]
    pools = [text.cut(f"{workers.label(entry)}: {executors.line(entry)}") for entry in found.get("executors", ())]
    several = len(found["loops"]) > 1 and "workers" in found
    first: list[list[str]] = (
        [_loops_lines(found["loops"])] if several else [_loop_lines(loop) for loop in found["loops"][:1]]
    )
    others: list[list[str]] = [] if several else [_loop_lines(loop) for loop in found["loops"][1:]]
    return text.joined(
        [f"obsloop, {who(found)}, {found['taken_at']}"],
        blocked,
        *first,
        [] if found["loops"] else ["No observed loop runs."],
        names,
        *others,
        ["Lints", *lints] if lints else [],
        ["Executors", *pools] if pools else [],
    )


def _loops_lines(loops: Sequence[dict[str, Any]]) -> list[str]:
    head = ["worker", "loop", *(part for label, *_ in _ROWS for part in (label, "5 min"))]
    rows = [
        [
            str(loop["worker"]),
            loop["loop"],
            *(
                part
                for _, key, least, _ in _ROWS
                for part in (_value(key, loop["windows"]["1m"][key]), text.bars(loop["steps"][key], least, 12))
            ),
        ]
        for loop in loops
    ]
    return text.table(head, rows, right="246")


def _loop_lines(loop: dict[str, Any]) -> list[str]:
    minute, minutes = (loop["windows"][name] for name in _SHOWN)
    head = (
        text.cut(f"Loop {workers.label(loop)}", 30), f"last {_length(minute, 60)}", "",
        f"last {_length(minutes, 300)}", "",
    )  # fmt: skip
    rows = [
        (
            label,
            _value(key, minute[key]), text.bars(_tail(loop["steps"][key], "1m"), least, 12),
            _value(key, minutes[key]), text.bars(_tail(loop["steps"][key], "5m"), least, 30),
        )
        for label, key, least, _ in _ROWS
    ]  # fmt: skip
    return [*text.table(head, rows, right="13"), *([_UVLOOP] if loop.get("uvloop") else [])]
