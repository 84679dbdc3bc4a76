"""What obsloop itself costs and drops: one table of times, and one of drops.

Code of every floor adds to these tables. Where a number is kept elsewhere, such as a thread's own CPU time, its module
registers a function that reads it. This module knows none of them.
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
}
"""What did not fit into a bounded table, by what it was: ``obsloop.dropped``."""
_spent_ns = {"snapshot": 0, "scrape": 0, "export": 0}
_readers: dict[str, Callable[[], int]] = {}
began = time.time()
"""When counting began, in seconds since the epoch."""


def add_time(what: str, spent_ns: int) -> None:
    """Add CPU time or time of obsloop's own: ``what`` is snapshot, scrape or export."""
    _spent_ns[what] += spent_ns


def read_time(what: str, read: Callable[[], int]) -> None:
    """Have ``read`` called for the nanoseconds that ``what`` has cost so far."""
    _readers[what] = read


def times_ns() -> dict[str, int]:
    """Return what each part has cost so far, in nanoseconds: ``obsloop.self.time``."""
    return {**_spent_ns, **{what: read() for what, read in _readers.items()}}


def count_export(spent: float, *, failed: bool = False) -> None:
    """An exporter that sends by itself has sent, or has failed to: one more in ``obsloop.dropped{what="export"}`` then.

    ``spent``: seconds that it took to put the figures into their form, without the sending; they are added to
    ``obsloop.self.time``. May be called in any thread.
    """
    spent_ns, failures = round(spent * 1e9), int(failed)  # before: no call comes between reading a sum and adding to it
    _spent_ns["export"] += spent_ns
    dropped["export"] += failures


def count_dropped_spans(number: int = 1) -> None:
    """An exporter of spans did not make so many, since it may only make so many a minute: that many more in
    ``obsloop.dropped{what="span"}``. May be called in any thread."""
    dropped["span"] += number


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global began  # noqa: PLW0603 - one moment for the whole process
    began = time.time()
    for counts in (dropped, _spent_ns):
        counts.update(dict.fromkeys(counts, 0))
