"""Answer /slow: the culprits of the last hour and day, and the last slow callbacks, slow iterations and blocks.

obsloop/blocking/totals.py adds the culprits up; obsloop/blocking/recent.py keeps the last events.
"""

import os
from html import escape
from traceback import FrameSummary
from typing import Any

from obsloop.blocking import totals
from obsloop.blocking.recent import KEPT, Noted, kept
from obsloop.events import LoopBlocked, LoopUnblocked, Sample, SlowCallback, SlowIteration
from obsloop.service import culprits, merging, source, text, workers
from obsloop.service.messages import Request, Response
from obsloop.service.pages import answer, clean, moment, page, place, table, who

MAX_FRAMES = 50  # of one stack
MAX_ALL_FRAMES = (
    5_000  # of all stacks in one answer: even if each character needs six bytes in HTML, half of MAX_BODY is enough
)
MAX_SAMPLES = 20
MAX_TOP = 10
MAX_STACKS = 5  # of culprits, in the text
WINDOWS = ("1h", "24h")

_NAMES: dict[type[Noted], str] = {
    SlowCallback: "slow_callback",
    SlowIteration: "slow_iteration",
    LoopBlocked: "loop_blocked",
    LoopUnblocked: "loop_blocked",
}


def slow(request: Request) -> Response:
    """Return the culprits and the last events as JSON, as a page or as text."""
    found = workers.report(request, "/slow", report, _merged)
    return answer(request, found, lambda found: _page(request, found), _text)


def report() -> dict[str, Any]:
    """Return both for JSON: with a bound on everything, and a count of what is left out. The newest event is first."""
    found = kept()
    frames_left = MAX_ALL_FRAMES
    events: list[dict[str, Any]] = []
    for event, since in zip(found.events, found.since, strict=True):
        shape = _shape(event, since)
        samples = event.samples if isinstance(event, (LoopBlocked, LoopUnblocked)) else ()
        for sample in samples[:MAX_SAMPLES]:
            shown = _sample(sample, min(frames_left, MAX_FRAMES))
            frames_left -= len(shown["stack"])
            shape["samples"].append(shown)
        shape["samples_left_out"] = max(0, len(samples) - MAX_SAMPLES)
        events.append(shape)
    sums = totals.totals()
    named = culprits.report(sums)
    return {
        "process": os.getpid(),
        "culprits": named,
        "culprits_left_out": len(sums.groups) - len(named),
        "blocks_under_others": sums.folded,
        "blocks_not_counted": sums.dropped,
        "older": found.older,
        "events": events,
    }


def _merged(reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return one report of those of several workers."""
    found = reports.values()
    named = merging.culprits(merging.joined(found, "culprits"))
    events = sorted(merging.joined(found, "events"), key=lambda event: event["started_at"] or "", reverse=True)
    return {
        "process": os.getpid(),
        "culprits": named[: culprits.MAX_SHOWN],
        "culprits_left_out": merging.total(found, "culprits_left_out") + max(0, len(named) - culprits.MAX_SHOWN),
        "blocks_under_others": merging.total(found, "blocks_under_others"),
        "blocks_not_counted": merging.total(found, "blocks_not_counted"),
        "older": merging.total(found, "older") + max(0, len(events) - KEPT),
        "events": events[:KEPT],
    }


def _shape(event: Noted, since: float) -> dict[str, Any]:
    """Return one event for JSON. A block that still lasts has lasted for the seconds ``since`` its event, too."""
    lasting = isinstance(event, LoopBlocked)
    top = event.top if isinstance(event, SlowIteration) else ()
    return {
        "event": _NAMES[type(event)],
        "loop": clean(event.loop_name),
        "kind": event.kind,
        "name": clean(event.name),
        "file": place(event.filename, event.lineno),
        "duration_seconds": event.duration + since if lasting else event.duration,
        "schedule_delay_seconds": event.schedule_delay,
        "started_at": moment(event.started_at),
        "task": None if event.task_name is None else clean(event.task_name),
        "detail": clean(event.detail),
        "cause": event.cause,
        "lasting": lasting,
        "culprit": clean(event.culprit_function),
        "culprit_file": place(event.culprit_filename, event.culprit_lineno),
        "http_route": clean(event.http_route) or None,
        "culprit_seen": event.culprit_seen,
        "samples": [],
        "top": [{"name": clean(name), "seconds": spent, "calls": calls} for name, spent, calls in top[:MAX_TOP]],
    }


def _sample(sample: Sample, limit: int) -> dict[str, Any]:
    """Return the innermost `limit` frames of one stack: they say where the time went."""
    after, stack = sample
    shown = stack[max(0, len(stack) - limit) :]
    return {"after_seconds": after, "stack": [_frame(frame) for frame in shown], "left_out": len(stack) - len(shown)}


def _frame(frame: FrameSummary) -> str:
    # Not frame.line: it would read the source file.
    return f"{place(frame.filename, frame.lineno, 120)} in {clean(frame.name, 80)}"


def _page(request: Request, report: dict[str, Any]) -> Response:
    parts = [f'<p class="alarm">{escape(line)}</p>' for line in workers.stuck(report)]
    parts.append("<h2>Culprits</h2>")
    if report["culprits"]:
        parts.append(culprits.html(report["culprits"], WINDOWS))
    else:
        parts.append("<p>Nothing has blocked a loop in the last 24 hours, or since the process began.</p>")
    parts += [f"<p>{escape(line)}</p>" for line in _left_out(report)]
    parts.append("<h2>Last slow callbacks, slow iterations and blocks</h2>")
    head = ("culprit", "seconds", "when (UTC)", "what", "cause", "callback", "loop", "waited before", "")
    rows = [
        (
            escape(event["culprit"]) + f"<br><small>{escape(event['culprit_file'] or '')}</small>",
            f"{event['duration_seconds']:.3f}{' and lasts' if event['lasting'] else ''}",
            escape((event["started_at"] or "")[11:19]),
            escape(event["event"].replace("_", " ")),
            escape(text.cause(event["cause"])),
            escape(_callback(event)) + f"<br><small>{escape(event['file'] or '')}</small>",
            escape(workers.label(event)),
            f"{event['schedule_delay_seconds']:.3f}",
            _details(event),
        )
        for event in report["events"]
    ]
    parts.append(table(head, rows, numbers=(1, 7)) if rows else "<p>Nothing has been slow so far.</p>")
    if report["older"]:
        parts.append(f"<p>And {report['older']} before these, no longer kept.</p>")
    return page(request, "obsloop: slow", "\n".join(parts), whose=who(report))


def _callback(event: dict[str, Any]) -> str:
    return " ".join(filter(None, (event["name"], event["task"] and f"({event['task']})", event["detail"])))


def _left_out(report: dict[str, Any]) -> list[str]:
    """Return sentences about the culprits that are not shown."""
    counts = (
        (report["culprits_left_out"], "more culprits are not shown."),
        (report["blocks_under_others"], "blocks are added up under (others): too many culprits in a short time."),
        (report["blocks_not_counted"], "blocks are missing here: too many in a short time."),
    )
    return [f"{n} {what}" for n, what in counts if n]


def _text(report: dict[str, Any]) -> str:
    missing = [line for each in workers.stuck(report) for line in text.wrapped(each)]
    named = ["Culprits"]
    named += culprits.lines(report["culprits"], WINDOWS) if report["culprits"] else ["nothing has blocked a loop"]
    stacks = [
        [f"{entry['function']}, last seen at:", *text.indented(source.lines(entry["stack"]))]
        for entry in report["culprits"][:MAX_STACKS]
        if entry["stack"]
    ]
    head = ("when", "what", "seconds", "cause", "where", "culprit")
    rows = [
        (
            (event["started_at"] or "")[11:19],
            event["event"].replace("_", " "),
            f"{event['duration_seconds']:.3f}{' and lasts' if event['lasting'] else ''}",
            text.cause(event["cause"]),
            event["culprit_file"] or event["file"] or "",
            event["culprit"] or event["name"],
        )
        for event in report["events"]
    ]
    older = [f"and {report['older']} before these, no longer kept"] if report["older"] else []
    events = text.table(head, rows, right="2", ends="45") if rows else ["nothing has been slow so far"]
    return text.joined(missing, [*named, *_left_out(report)], *stacks, ["Last events (times in UTC)", *events, *older])


def _details(event: dict[str, Any]) -> str:
    """Return what the row's triangle opens: stacks of a block, or what an iteration was spent on."""
    lines = [f"{part['seconds']:.3f} s in {part['calls']} calls: {part['name']}" for part in event["top"]]
    for sample in event["samples"]:
        lines.append(f"after {sample['after_seconds']:.3f} s:")
        if sample["left_out"]:
            lines.append(f"    ({sample['left_out']} outer frames left out)")
        lines += [f"    {frame}" for frame in sample["stack"]]
    if event["samples_left_out"]:
        lines.append(f"({event['samples_left_out']} more samples left out)")
    if not lines:
        return ""
    what = "top" if event["top"] else "samples"
    return f"<details><summary>{what}</summary><pre>{escape(chr(10).join(lines))}</pre></details>"
