"""Make the demo's table from the text of /metrics, with a few rates and a quantile.

Every metric is a counter or a histogram that only grows, so a line of the table is the difference between two
readings. It knows of obsloop only the names of its metrics.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_TIME = "asyncio_eventloop_time_seconds_total"
_DELAY = "asyncio_eventloop_schedule_delay_seconds_bucket"
_DURATION = "asyncio_eventloop_callback_duration_seconds"
_BLOCKED = "asyncio_eventloop_block_time_seconds_total"

#: Kinds of callbacks that have a column.
_KINDS = {"task_step": "steps/s", "timer": "timers/s", "reader": "reads/s"}

_COLUMNS = "{:>6}  {:<12} {:>5} {:>5}  {:>10} {:>10} {:>8}  {:>8} {:>8} {:>8}"
HEADER = _COLUMNS.format("second", "load", "busy", "idle", "p99 delay", "slowest", "blocked", *_KINDS.values())

_LEGEND = """\
busy       share of the time that the loop was not idle
p99 delay  99 of 100 callbacks began at most so long after they were ready
slowest    the longest callback took at most so long
blocked    how long the loop was blocked
steps/s    task steps, timers and readers a second"""


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
            self.blocked - before.blocked,
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
                reading.blocked += sample.value
    return reading


def quantile(buckets: dict[float, float], q: float) -> float:
    """Return the upper bound of the quantile's bucket; NaN if all are empty."""
    total = buckets.get(math.inf, 0.0)
    if not total:
        return math.nan
    return next(bound for bound, count in sorted(buckets.items()) if count >= q * total)


def line(second: float, load: str, before: Reading, now: Reading) -> str:
    """Return one line of the table: the difference between two readings."""
    passed = now.since(before)
    idle = passed.states.get("idle", 0.0) / (passed.ran or math.nan)
    return _COLUMNS.format(
        f"{second:.1f}", load, _share(1.0 - idle), _share(idle),
        _at_most(quantile(passed.delays, 0.99)), _at_most(quantile(passed.durations, 1.0)),
        f"{passed.blocked:.2f} s" if passed.blocked else "-",
        *(f"{passed.calls.get(kind, 0.0) / passed.at:.0f}" for kind in _KINDS),
    )  # fmt: skip


def summary(first: Reading, last: Reading) -> str:
    """Return the legend, and the sum of the states, which is the time that passed."""
    passed = last.since(first)
    shares = ", ".join(f"{state} {seconds:.2f}" for state, seconds in passed.states.items())
    return f"{_LEGEND}\n\nIn {passed.at:.2f} s the loop ran {passed.ran:.2f} s: {shares} s."


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _at_most(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if math.isinf(seconds):
        return "> 10 s"
    return f"<= {seconds:g} s" if seconds >= 1 else f"<= {seconds * 1e3:g} ms"
