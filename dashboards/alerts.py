"""Define the alert rules, with the configuration's thresholds.

An alert is about one loop or one target, which its labels name. If a target is a group of processes, the metrics of its
workers are added up where that is what users meet, and the alert's text names the worst worker. Alerts on what one
worker suffers have the label `worker`. Each alert has an entry of the runbook under its name in
lower case, and two tests of promtool (`alert_tests.py`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import config
from config import Threshold
from queries import LOOP, WORKER, metric, promql
from rules import BAD, BLOCKED, PER_WORKER

PER_LOOP = f"job, instance, {LOOP}"
WHO = "{{ $labels.instance }} ({{ $labels.job }})"
LOOP_WHO = "loop {{ $labels.asyncio_eventloop_name }} of " + WHO
# The label is missing where a process is in no group.
WORKER_WHO = "loop {{ $labels.asyncio_eventloop_name }} of {{ with $labels.worker }}worker {{ . }} of {{ end }}" + WHO
# An alert says who blocks the loop: Prometheus fills in the functions that blocked it for longest.
CULPRITS = (
    "{{ $top := printf `topk(3, sum by (code_function_name) (rate("
    + metric("asyncio.eventloop.block.time")
    + "{job=%q,instance=%q," + LOOP + "=%q}[5m]) > 0))` $labels.job $labels.instance $labels." + LOOP
    + " | query | sortByLabel `code_function_name` }}{{ range $top }} {{ .Labels.code_function_name }} blocked it for"
    " {{ .Value | humanizePercentage }} of the last five minutes.{{ end }}"
)  # fmt: skip
# Of a group of processes, it also names the worker whose requests waited most often.
_OF = "job=%[1]q,instance=%[2]q," + LOOP + "=%[3]q," + WORKER + "=~`.+`"
_SHARE = (
    f"1 - sum by ({WORKER}) (rate({metric('asyncio.eventloop.lag', 'bucket')}{{{_OF},le=`{config.LAG_BOUND:g}`}}[5m]))"
    f" / (sum by ({WORKER}) (rate({metric('asyncio.eventloop.lag', 'count')}{{{_OF}}}[5m])) > 0)"
)
WORST = (
    '{{ $worst := printf "topk(1, ' + _SHARE + ')" $labels.job $labels.instance $labels.' + LOOP + " | query }}"
    "{{ range $worst }} Worker {{ .Labels." + WORKER + " }} was the worst in the last five minutes, with"
    " {{ .Value | humanizePercentage }}.{{ end }}"
)


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
        """The runbook's entry. GitHub makes its anchor from the heading."""
        return f"{config.RUNBOOK}#{self.name.lower()}"

    def rule(self) -> dict[str, Any]:
        """Return the alert as Prometheus reads it."""
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
    limit = f"{threshold.value * (1 - config.LAG_OBJECTIVE):g}"
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
        f"max by ({PER_WORKER}) (<asyncio.eventloop.blocked.time>) {_above(config.BLOCKED)}",
        "The " + WORKER_WHO + " is blocked now",
        "One callback has held the loop for {{ $value | humanizeDuration }}. Nothing else on the loop runs meanwhile.",
    ),
    Alert(
        "AsyncioLagHigh", "critical", config.LAG_FAST, _burning(config.LAG_FAST, "1h", "5m"),
        "Requests wait too long for the " + LOOP_WHO,
        "A request that arrived in the last hour had to wait longer than"
        f" {config.LAG_BOUND:g} s for the loop in {{{{ $value | humanizePercentage }}}} of the time;"
        f" {1 - config.LAG_OBJECTIVE:.1%} is allowed.{WORST}{CULPRITS}",
    ),
    Alert(
        "AsyncioLagRising", "warning", config.LAG_SLOW, _burning(config.LAG_SLOW, "6h", "30m"),
        "Requests wait longer than they should for the " + LOOP_WHO,
        "A request that arrived in the last six hours had to wait longer than"
        f" {config.LAG_BOUND:g} s for the loop in {{{{ $value | humanizePercentage }}}} of the time;"
        f" {1 - config.LAG_OBJECTIVE:.1%} is allowed.{WORST}{CULPRITS}",
    ),
    Alert(
        "AsyncioTimeBlocked", "warning", config.TIME_BLOCKED, f"loop:{BLOCKED} {_above(config.TIME_BLOCKED)}",
        "Slow callbacks block the " + LOOP_WHO + " again and again",
        "It was blocked for {{ $value | humanizePercentage }} of the last five minutes." + CULPRITS,
    ),
    Alert(
        "AsyncioLoopSaturated", "warning", config.SATURATED,
        f"worker:asyncio_eventloop_utilization:ratio_rate5m {_above(config.SATURATED)}",
        "The " + WORKER_WHO + " is near saturation",
        "It was busy for {{ $value | humanizePercentage }} of the last five minutes. More load only makes it queue.",
    ),
    Alert(
        "AsyncioExecutorStarved", "critical", config.STARVED,
        f"max by ({_JOB}) (<asyncio.executor.oldest_job.age>) {_above(config.STARVED)}"
        f" and sum by ({_JOB}) (<asyncio.executor.queue.length>) > 0",
        "The executor {{ $labels.executor }} is starved on the " + LOOP_WHO,
        "Jobs queue, and the oldest one that has not ended is {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        "AsyncioTasksLeaking", "warning", config.LEAKING,
        "min_over_time(<asyncio.task.active>[30m]) - max_over_time(<asyncio.task.active>[30m] offset 1h)"
        f" {_above(config.LEAKING)}",
        "Tasks pile up on the " + WORKER_WHO,
        "The lowest number of live tasks is now {{ $value | humanize }} above the highest of an hour ago.",
    ),
    Alert(
        "AsyncioTransportsPaused", "warning", config.PAUSED,
        f"{_PAUSED} / ({_OPEN} > 0) {_above(config.PAUSED)}",
        "Peers do not read what the " + LOOP_WHO + " writes",
        "On average {{ $value | humanizePercentage }} of its open transports had paused their protocols.",
    ),
    Alert(
        "AsyncioExceptionsRising", "warning", config.EXCEPTIONS,
        # `unless`, since without errors an hour ago there is no series to compare with.
        f"{_ERRORS} {_above(config.EXCEPTIONS)} unless {_ERRORS} <= {config.EXCEPTIONS_TIMES:g} * {_ERRORS_BEFORE}",
        "Uncaught errors are rising on the " + LOOP_WHO,
        "{{ $value | humanize }} errors a second reach the loop's exception handler, far more than an hour ago.",
    ),
    Alert(
        "AsyncioObserverDropping", "warning", config.DROPPED,
        f"sum by (job, instance, what) (increase(<obsloop.dropped>[15m])) {_above(config.DROPPED)}",
        "obsloop loses metrics ({{ $labels.what }}) in " + WHO,
        "{{ $value | humanize }} in a quarter of an hour were counted under _OTHER or lost.",
    ),
    Alert(
        "AsyncioObserverDisabled", "warning", config.DISABLED,
        f"sum by (job, instance, what) (<obsloop.instrument.disabled>) {_above(config.DISABLED)}",
        "An instrument's hook {{ $labels.what }} is disabled in " + WHO,
        "{{ $value | humanize }} hooks raised and are off until the process ends. The process' log says why.",
    ),
    Alert(
        "AsyncioTargetGone", "critical", config.GONE,
        f"up == 0 and on (job, instance) count by (job, instance) (last_over_time({_RUNS}[1h]))"
        f" or (count by (job) (last_over_time({_RUNS}[1h])) unless on (job) count by (job) (up))",
        "No metrics of {{ $labels.job }} {{ $labels.instance }} arrive",
        "It had a loop within the last hour, but now it is not scraped.",
    ),
)  # fmt: skip


def groups() -> list[dict[str, Any]]:
    """Return the rule group as Prometheus reads it."""
    return [{"name": "obsloop.alerts", "rules": [alert.rule() for alert in ALERTS]}]
