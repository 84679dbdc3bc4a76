"""Make the demo's table from the text of /metrics, with a few rates and a quantile.

Every metric is a counter or a histogram that only grows, so a line of the table is the difference between two
readings. Nothing here knows obsloop but for the names of its metrics.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_TIME = "asyncio_eventloop_time_seconds_total"
_DELAY = "asyncio_eventloop_schedule_delay_seconds_bucket"
_DURATION = "asyncio_eventloop_callback_duration_seconds"
_BLOCKED = "asyncio_eventloop_blocked_time_seconds"

#: Kinds of callbacks that have a column of their own; the others share one.
_KINDS = {"task_step": "steps/s", "timer": "timers/s", "reader": "reads/s"}

_COLUMNS = "{:>6}  {:<12} {:>5} {:>5} {:>9} {:>5}  {:>10} {:>10} {:>8}  {:>8} {:>8} {:>8} {:>8}"
HEADER = _COLUMNS.format(
    "second", "load", "busy", "idle", "callbacks", "gc", "p99 delay", "slowest", "blocked", *_KINDS.values(), "others/s"
)  # fmt: skip

_LEGEND = """\
busy       share of the time that the loop was not idle; idle, callbacks and gc are shares of it too
p99 delay  99 of 100 callbacks began at most so long after they were ready
slowest    the longest callback took at most so long
blocked    the longest time in one callback that /metrics showed while it lasted
steps/s    task steps, timers, readers and other callbacks a second"""


@dataclass
class Reading:
    """The values that the table needs, at one moment. In seconds; buckets by upper bound, cumulative."""

    at: float
    states: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    delays: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    durations: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    blocked: float = 0.0

    @property
    def ran(self) -> float:
        """How long the loop ran: the sum of its states."""
        return sum(self.states.values())

    def since(self, before: "Reading") -> "Reading":
        """Return the difference between two readings."""
        return Reading(
            self.at - before.at,
            {key: value - before.states.get(key, 0.0) for key, value in self.states.items()},
            {key: value - before.calls.get(key, 0.0) for key, value in self.calls.items()},
            {key: value - before.delays.get(key, 0.0) for key, value in self.delays.items()},
            {key: value - before.durations.get(key, 0.0) for key, value in self.durations.items()},
        )


def read(text: str, at: float) -> Reading:
    """Read an answer of /metrics, which came at the monotonic time `at`."""
    reading = Reading(at)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == _TIME:
                reading.states[sample.labels["state"]] += sample.value
            elif sample.name == f"{_DURATION}_count":
                reading.calls[sample.labels["kind"]] += sample.value
            elif sample.name == f"{_DURATION}_bucket":
                reading.durations[float(sample.labels["le"])] += sample.value
            elif sample.name == _DELAY:
                reading.delays[float(sample.labels["le"])] += sample.value
            elif sample.name == _BLOCKED:
                reading.blocked = max(reading.blocked, sample.value)
    return reading


def quantile(buckets: dict[float, float], q: float) -> float:
    """Return the upper bound of the quantile's bucket; NaN if all are empty."""
    total = buckets.get(math.inf, 0.0)
    if not total:
        return math.nan
    return next(bound for bound, count in sorted(buckets.items()) if count >= q * total)


def line(second: float, load: str, before: Reading, now: Reading, blocked: float) -> str:
    """Return one line of the table: the difference between two readings."""
    passed = now.since(before)
    ran = passed.ran or math.nan
    idle, calls, gc = (passed.states.get(state, 0.0) / ran for state in ("idle", "callback", "gc"))
    rates = {kind: count / passed.at for kind, count in passed.calls.items()}
    return _COLUMNS.format(
        f"{second:.1f}", load, _share(1.0 - idle), _share(idle), _share(calls), _share(gc),
        _at_most(quantile(passed.delays, 0.99)), _at_most(quantile(passed.durations, 1.0)),
        f"{blocked:.2f} s" if blocked >= 0.05 else "-",
        *(f"{rates.pop(kind, 0.0):.0f}" for kind in _KINDS), f"{sum(rates.values()):.0f}",
    )  # fmt: skip


def summary(first: Reading, last: Reading) -> str:
    """Return the legend, and the sum of the states, which is the time that passed."""
    passed = last.since(first)
    shares = ", ".join(f"{state} {seconds:.2f}" for state, seconds in passed.states.items())
    return f"{_LEGEND}\n\nIn {passed.at:.2f} s the loop ran {passed.ran:.2f} s: {shares} s."


def blockers(slow: dict[str, Any]) -> str:
    """Return what blocked the loop, from /slow: one line for each place and cause, the longest sum first."""
    found: dict[tuple[str, str], list[float]] = {}
    for event in slow["events"]:
        if event["event"] == "loop_blocked":
            where = re.search(r"at (\S+:\d+ in \S+)", event["detail"])
            place = where[1] if where else event["name"]
            found.setdefault((place, event["cause"]), []).append(event["duration_seconds"])
    lines = [
        f"  {len(times)} x up to {max(times):.2f} s, cause {cause}: {where}"
        for (where, cause), times in sorted(found.items(), key=lambda item: sum(item[1]), reverse=True)[:5]
    ]
    return "\n".join(["What blocked the loop:", *lines]) if lines else "Nothing blocked the loop."


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _at_most(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if math.isinf(seconds):
        return "> 10 s"
    return f"<= {seconds:g} s" if seconds >= 1 else f"<= {seconds * 1e3:g} ms"
