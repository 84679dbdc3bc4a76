"""Answer /slow: the last slow callbacks, slow iterations and blocks, which obsloop/blocking/recent.py keeps."""

import os
from html import escape
from traceback import FrameSummary
from typing import Any

from obsloop.blocking.recent import Noted, kept
from obsloop.events import LoopBlocked, LoopUnblocked, Sample, SlowCallback, SlowIteration
from obsloop.service.messages import Request, Response
from obsloop.service.pages import answer, clean, moment, page, place, table

MAX_FRAMES = 50  # of one stack
MAX_ALL_FRAMES = (
    5_000  # of all stacks in one answer: even if each character needs six bytes in HTML, half of MAX_BODY is enough
)
MAX_SAMPLES = 20
MAX_TOP = 10

_NAMES: dict[type[Noted], str] = {
    SlowCallback: "slow_callback",
    SlowIteration: "slow_iteration",
    LoopBlocked: "loop_blocked",
    LoopUnblocked: "loop_blocked",
}


def slow(request: Request) -> Response:
    """Return the last events as JSON or as a page, newest first."""
    return answer(request, report(), _page)


def report() -> dict[str, Any]:
    """Return the last events for JSON: with a bound on everything, and a count of what is left out."""
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
    return {"process": os.getpid(), "older": found.older, "events": events}


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


def _page(report: dict[str, Any]) -> Response:
    head = ("when", "loop", "what", "seconds", "waited before", "callback", "defined at", "cause", "")
    rows = [
        (
            escape(event["started_at"] or ""),
            escape(event["loop"]),
            escape(event["event"].replace("_", " ")),
            f"{event['duration_seconds']:.3f}{' and lasts' if event['lasting'] else ''}",
            f"{event['schedule_delay_seconds']:.3f}",
            escape(" ".join(filter(None, (event["name"], event["task"] and f"({event['task']})", event["detail"])))),
            escape(event["file"] or ""),
            escape(event["cause"].replace("_", " ")),
            _details(event),
        )
        for event in report["events"]
    ]
    shown = table(head, rows) if rows else "<p>Nothing has been slow so far.</p>"
    older = f"<p>And {report['older']} before these, no longer kept.</p>" if report["older"] else ""
    return page("Slow callbacks, slow iterations, blocks", shown + older)


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
