"""The blocks that last, with their stacks, and the last block of each loop: for JSON, and for the overview."""

from typing import Any

from obsloop.blocking.recent import Noted, kept
from obsloop.events import LoopBlocked
from obsloop.metrics.snapshot import Snapshot
from obsloop.service import culprits, source
from obsloop.service.pages import clean


def lasting(found: dict[str, Snapshot], limit: int) -> list[dict[str, Any]]:
    """Return the blocks that last, the longest first. `found` has the present snapshots by loop name."""
    events = kept()
    blocks: list[dict[str, Any]] = [
        {
            **_culprit(event, event.duration + since),
            "loop": clean(event.loop_name),
            "task": None if event.task_name is None else clean(event.task_name),
            "stack": source.frames(event.samples[-1][1]) if event.samples else [],
        }
        for event, since in zip(events.events, events.since, strict=True)
        # A loop that went away while it was blocked has no end of its block.
        if isinstance(event, LoopBlocked) and event.loop_name in found and found[event.loop_name].blocked_time > 0
    ]
    return sorted(blocks, key=lambda block: -block["seconds"])[:limit]


def last() -> dict[str, dict[str, Any]]:
    """Return by loop name the last of the kept blocks, slow callbacks and slow iterations."""
    found: dict[str, dict[str, Any]] = {}
    events = kept()
    for event, since in zip(events.events, events.since, strict=True):
        name = clean(event.loop_name)
        if name not in found:
            now = isinstance(event, LoopBlocked)
            found[name] = {
                **_culprit(event, event.duration + since if now else event.duration),
                "seconds_ago": 0.0 if now else since,
            }
    return found


def _culprit(event: Noted, seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "function": clean(event.culprit_function) or culprits.MANY,
        "file": source.where(event.culprit_filename, event.culprit_lineno) or None,
        "cause": event.cause,
        "route": clean(event.http_route) or None,
    }
