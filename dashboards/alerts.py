"""Alert rules: who is told what, from which threshold of the configuration on.

An alert is one loop's or one process' (its labels say which), has an entry of the runbook under its own name in lower
case, and two tests of promtool (`alert_tests.py`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import config
from config import Threshold
from queries import LOOP, promql
from rules import BAD

PER_LOOP = f"job, instance, {LOOP}"
WHO = "{{ $labels.instance }} ({{ $labels.job }})"
LOOP_WHO = "loop {{ $labels.asyncio_eventloop_name }} of " + WHO


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert."""

    name: str
    severity: Literal["critical", "warning", "info"]
    threshold: Threshold
    expr: str
    summary: str
    description: str

    @property
    def runbook_url(self) -> str:
        """Its entry; the anchor is what GitHub makes of the heading."""
        return f"{config.RUNBOOK}#{self.name.lower()}"

    def rule(self) -> dict[str, Any]:
        """As Prometheus takes it."""
        return {
            "alert": self.name,
            "expr": promql(self.expr),
            "for": self.threshold.hold,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": self.runbook_url,
            },
        }


def _burning(threshold: Threshold, long: str, short: str) -> str:
    limit = f"{threshold.value * (1 - config.DELAY_OBJECTIVE):g}"
    return f"loop:{BAD}{long} > {limit} and loop:{BAD}{short} > {limit}"


def _above(threshold: Threshold) -> str:
    return f"> {threshold.value:g}"


_JOB = f"job, instance, {LOOP}, executor"
_PAUSED = f"sum by ({PER_LOOP}) (rate(<asyncio.transport.write_paused.time>[5m]))"
_OPEN = f"sum by ({PER_LOOP}) (<asyncio.transport.active>)"
_ERRORS = f"sum by ({PER_LOOP}) (rate(<asyncio.eventloop.exceptions>[5m]))"
_ERRORS_BEFORE = f"sum by ({PER_LOOP}) (rate(<asyncio.eventloop.exceptions>[1h] offset 5m))"
_RUNS = "<asyncio.eventloop.utilization>"

ALERTS: tuple[Alert, ...] = (
    Alert(
        "AsyncioLoopBlocked", "critical", config.BLOCKED,
        f"max by ({PER_LOOP}) (<asyncio.eventloop.blocked.time>) {_above(config.BLOCKED)}",
        "The " + LOOP_WHO + " is blocked now",
        "One callback has held the loop for {{ $value | humanizeDuration }}; nothing else on it runs meanwhile.",
    ),
    Alert(
        "AsyncioScheduleDelayHigh", "critical", config.DELAY_FAST, _burning(config.DELAY_FAST, "1h", "5m"),
        "Callbacks wait too long on the " + LOOP_WHO,
        "{{ $value | humanizePercentage }} of the callbacks of the last hour waited longer than"
        f" {config.DELAY_BOUND:g} s for their turn; {1 - config.DELAY_OBJECTIVE:.0%} may.",
    ),
    Alert(
        "AsyncioScheduleDelayRising", "warning", config.DELAY_SLOW, _burning(config.DELAY_SLOW, "6h", "30m"),
        "Callbacks wait longer than they should on the " + LOOP_WHO,
        "{{ $value | humanizePercentage }} of the callbacks of the last six hours waited longer than"
        f" {config.DELAY_BOUND:g} s for their turn; {1 - config.DELAY_OBJECTIVE:.0%} may.",
    ),
    Alert(
        "AsyncioLoopSaturated", "warning", config.SATURATED,
        f"loop:asyncio_eventloop_utilization:ratio_rate5m {_above(config.SATURATED)}",
        "The " + LOOP_WHO + " is near saturation",
        "It was busy for {{ $value | humanizePercentage }} of the last five minutes; what comes on top of that queues.",
    ),
    Alert(
        "AsyncioExecutorStarved", "critical", config.STARVED,
        f"max by ({_JOB}) (<asyncio.executor.oldest_job.age>) {_above(config.STARVED)}"
        f" and sum by ({_JOB}) (<asyncio.executor.queue.length>) > 0",
        "The executor {{ $labels.executor }} is starved, of the " + LOOP_WHO,
        "Jobs queue, and the oldest one that has not ended is {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        "AsyncioTasksLeaking", "warning", config.LEAKING,
        "min_over_time(<asyncio.task.active>[30m]) - max_over_time(<asyncio.task.active>[30m] offset 1h)"
        f" {_above(config.LEAKING)}",
        "Tasks pile up on the " + LOOP_WHO,
        "At its lowest the number of live tasks is {{ $value | humanize }} above the highest of an hour ago.",
    ),
    Alert(
        "AsyncioTransportsPaused", "warning", config.PAUSED,
        f"{_PAUSED} / ({_OPEN} > 0) {_above(config.PAUSED)}",
        "Peers do not read what the " + LOOP_WHO + " writes",
        "On average {{ $value | humanizePercentage }} of its open transports had their protocols paused.",
    ),
    Alert(
        "AsyncioExceptionsRising", "warning", config.EXCEPTIONS,
        # `unless`, since an hour ago there may have been none, and then there is no series to compare with.
        f"{_ERRORS} {_above(config.EXCEPTIONS)} unless {_ERRORS} <= {config.EXCEPTIONS_TIMES:g} * {_ERRORS_BEFORE}",
        "Errors that nobody catches are rising on the " + LOOP_WHO,
        "{{ $value | humanize }} in a second reach the loop's exception handler, and an hour ago far fewer did.",
    ),
    Alert(
        "AsyncioObserverDropping", "warning", config.DROPPED,
        f"sum by (job, instance, what) (increase(<obsloop.dropped>[15m])) {_above(config.DROPPED)}",
        "obsloop loses figures ({{ $labels.what }}) in " + WHO,
        "{{ $value | humanize }} in a quarter of an hour were counted under _OTHER or lost.",
    ),
    Alert(
        "AsyncioObserverDisabled", "warning", config.DISABLED,
        f"sum by (job, instance, what) (<obsloop.instrument.disabled>) {_above(config.DISABLED)}",
        "An instrument's hook {{ $labels.what }} is disabled in " + WHO,
        "{{ $value | humanize }} hooks raised and are off until the process ends; its log says why.",
    ),
    Alert(
        "AsyncioTargetGone", "critical", config.GONE,
        f"up == 0 and on (job, instance) count by (job, instance) (last_over_time({_RUNS}[1h]))"
        f" or (count by (job) (last_over_time({_RUNS}[1h])) unless on (job) count by (job) (up))",
        "No figures of {{ $labels.job }} {{ $labels.instance }} arrive",
        "It had a loop within the last hour, and now it is not scraped.",
    ),
)  # fmt: skip


def groups() -> list[dict[str, Any]]:
    """The rule group, as Prometheus takes it."""
    return [{"name": "obsloop.alerts", "rules": [alert.rule() for alert in ALERTS]}]
