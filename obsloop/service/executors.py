"""What the executors of the running loops are busy with: for JSON, for pages, and as text.

One line for each executor: ``default: 6 of 6 threads busy, 30 queued, oldest 27.0 s; app.report (6)``.
"""

from html import escape
from typing import Any

from obsloop.base import clock
from obsloop.metrics import registry
from obsloop.probes import executor_loads
from obsloop.probes.executor_pools import Load
from obsloop.service import workers
from obsloop.service.pages import clean, place

MAX_NAMED = 5
"""So many functions are named for each executor."""


def report() -> list[dict[str, Any]]:
    """Return one entry for each executor of each loop, for JSON. The longest wait comes first."""
    now_ns = clock.monotonic_ns()
    entries = [
        _shape(metrics.name, loop, load, now_ns)
        for metrics in registry.every_one()
        for ref in list(metrics.live)
        if (loop := ref()) is not None
        for load in executor_loads.loads(loop, now_ns)
    ]
    return sorted(entries, key=lambda entry: -entry["longest_wait_seconds"])


def line(entry: dict[str, Any]) -> str:
    """Return an entry of the report as one line of text."""
    most = entry["limit"] if entry["limit"] is not None else entry["threads"]
    of = f" of {most}" if most is not None else ""
    queue = f"{entry['queued']} queued"
    if entry["queued"]:
        queue += f", oldest {entry['longest_wait_seconds']:.1f} s"
    held = ", ".join(f"{function['name']} ({function['workers']})" for function in entry["held_by"])
    return f"{entry['executor']}: {entry['active']}{of} {entry['workers']} busy, {queue}{f'; {held}' if held else ''}"


def text(entries: list[dict[str, Any]]) -> str:
    """Return the report as text, one line for each executor, with its loop."""
    return "".join(f"{workers.label(entry)}: {line(entry)}\n" for entry in entries)


def html(entries: list[dict[str, Any]]) -> str:
    """Return the report as HTML; empty without executors."""
    if not entries:
        return ""
    items = "\n".join(f"<li>{escape(workers.label(entry))}: {escape(line(entry))}</li>" for entry in entries)
    return f"<h2>Executors</h2>\n<ul>\n{items}\n</ul>"


def _shape(loop_name: str, loop: Any, load: Load, now_ns: int) -> dict[str, Any]:
    # While no job waits, the functions are not asked for: the loop would have to wake up and drop what that held.
    held = executor_loads.holders(loop, load.executor).most_common(MAX_NAMED) if load.queued else []
    return {
        "loop": clean(loop_name),
        "executor": clean(load.executor),
        "workers": load.workers,
        "active": load.active,
        "threads": load.threads,
        "limit": load.limit,
        "queued": load.queued,
        "longest_wait_seconds": max(0, now_ns - load.waiting_ns) / 1e9 if load.waiting_ns else 0.0,
        "held_by": [
            {"name": clean(site.name), "file": place(site.filename, site.lineno), "workers": n} for site, n in held
        ],
    }
