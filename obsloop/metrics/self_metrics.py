"""obsloop's own cost and losses: a table of times, and a table of drops.

Code of every folder adds to these tables. If a number is kept elsewhere, such as a thread's CPU time, its module
registers a function that reads it. This module imports none of those modules.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from obsloop.base.fork import reset_in_child
from obsloop.metrics.catalog import LOOP_NAME_LABEL

dropped = {
    LOOP_NAME_LABEL: 0,
    "torn_snapshot": 0,
    "export": 0,
    "span": 0,
    "coroutine": 0,
    "task_lint": 0,
    "task_creation": 0,
    "task_cancellation": 0,
    "profile": 0,
}
"""How many items were dropped, mostly because a bounded table was full, by kind: ``obsloop.dropped``."""
_spent_ns = {"snapshot": 0, "scrape": 0, "export": 0, "profile": 0}
_readers: dict[str, Callable[[], int]] = {}
began = time.time()
"""When counting began, in seconds since the epoch."""


def add_time(what: str, spent_ns: int) -> None:
    """Add time that obsloop itself spent, in nanoseconds: ``what`` is snapshot, scrape, export or profile."""
    _spent_ns[what] += spent_ns


def read_time(what: str, read: Callable[[], int]) -> None:
    """Register ``read``, which returns the nanoseconds that ``what`` has cost so far."""
    _readers[what] = read


def times_ns() -> dict[str, int]:
    """Return what each part has cost so far, in nanoseconds: ``obsloop.self.time``."""
    return {**_spent_ns, **{what: read() for what, read in _readers.items()}}


def count_export(spent: float, *, failed: bool = False) -> None:
    """Count an export of an exporter that pushes; if ``failed``, also in ``obsloop.dropped{what="export"}``.

    ``spent``: seconds that the exporter took to format the metrics, without sending them. They are added to
    ``obsloop.self.time``. Any thread may call this.
    """
    spent_ns, failures = round(spent * 1e9), int(failed)  # first, so that no call comes between reading and adding
    _spent_ns["export"] += spent_ns
    dropped["export"] += failures


def count_dropped_spans(number: int = 1) -> None:
    """Count ``number`` spans that an exporter did not make because of the limit per minute, in
    ``obsloop.dropped{what="span"}``. Any thread may call this."""
    dropped["span"] += number


@reset_in_child
def forked() -> None:
    """Set the tables to zero in a forked child."""
    global began  # noqa: PLW0603 - one moment for the whole process
    began = time.time()
    for counts in (dropped, _spent_ns):
        counts.update(dict.fromkeys(counts, 0))
