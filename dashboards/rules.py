"""Define recording rules: queries that dashboards and alerts repeat, and series for a server above this one.

Names follow Prometheus' pattern, level:metric:operation. `worker:` is one loop of one process, `loop:` the loops of one
name in all workers of a target (job, instance and the loop's name), `job:` all loops of a job. Federate or remote-write
only the last.
"""

from typing import Any

from config import LAG_BOUND
from queries import LOOP, WORKER, promql

LEVELS = {"loop": f"job, instance, {LOOP}", "job": "job"}
PER_WORKER = f"job, instance, {LOOP}, {WORKER}"
LAG_WINDOWS = ("5m", "30m", "1h", "6h")
BAD = "asyncio_eventloop_lag:bad_ratio_rate"
BLOCKED = "asyncio_eventloop_block_time:ratio_rate5m"


def groups() -> list[dict[str, Any]]:
    """Return the rule groups as Prometheus reads them."""
    return [
        {"name": "obsloop.loops", "interval": "30s", "rules": [*_busy(), *_blocked(), *_p99(), *_rates()]},
        # Less often, since they have long windows over many series.
        {"name": "obsloop.lags", "interval": "1m", "rules": [_bad("loop", window) for window in LAG_WINDOWS]},
    ]


def _rule(record: str, expr: str) -> dict[str, Any]:
    return {"record": record, "expr": promql(expr)}


def _busy() -> list[dict[str, Any]]:
    idle, every = 'rate(<asyncio.eventloop.time|state="idle">[5m])', "rate(<asyncio.eventloop.time>[5m])"
    return [
        _rule(
            f"{level}:asyncio_eventloop_utilization:ratio_rate5m",
            f"1 - sum by ({by}) ({idle}) / sum by ({by}) ({every})",
        )
        for level, by in {"worker": PER_WORKER, **LEVELS}.items()
    ]


def _blocked() -> list[dict[str, Any]]:
    blocked, every = "rate(<asyncio.eventloop.block.time>[5m])", "rate(<asyncio.eventloop.time>[5m])"
    return [
        _rule(f"{level}:{BLOCKED}", f"sum by ({by}) ({blocked}) / (sum by ({by}) ({every}) > 0)")
        for level, by in LEVELS.items()
    ]


def _bad(level: str, window: str) -> dict[str, Any]:
    by = LEVELS[level]
    good = f'sum by ({by}) (rate(<asyncio.eventloop.lag:bucket|le="{LAG_BOUND:g}">[{window}]))'
    every = f"sum by ({by}) (rate(<asyncio.eventloop.lag:count>[{window}]))"
    return _rule(f"{level}:{BAD}{window}", f"1 - {good} / ({every} > 0)")


def _p99() -> list[dict[str, Any]]:
    return [
        _rule(
            f"{level}:{series}:p99_rate5m",
            f"histogram_quantile(0.99, sum by ({by}, le) (rate(<{metric}:bucket>[5m])))",
        )
        for series, metric in (
            ("asyncio_eventloop_lag_seconds", "asyncio.eventloop.lag"),
            ("asyncio_eventloop_schedule_delay_seconds", "asyncio.eventloop.schedule.delay"),
        )
        for level, by in LEVELS.items()
    ]


def _rates() -> list[dict[str, Any]]:
    return [
        _rule(
            f"job:{name}:rate5m",
            f"sum by (job{label}) (rate(<{metric}>[5m]))",
        )
        for name, metric, label in (
            ("asyncio_eventloop_time_seconds", "asyncio.eventloop.time", ", state"),
            ("asyncio_eventloop_block_episodes", "asyncio.eventloop.block.episodes", ", cause"),
            ("asyncio_eventloop_exceptions", "asyncio.eventloop.exceptions", ""),
            ("asyncio_task_finished", "asyncio.task.finished", ", outcome"),
            ("asyncio_transport_io_bytes", "asyncio.transport.io", ", direction"),
        )
    ] + [
        _rule("job:asyncio_task_active:sum", "sum by (job) (<asyncio.task.active>)"),
        _rule("job:asyncio_transport_active:sum", "sum by (job) (<asyncio.transport.active>)"),
        _rule("job:asyncio_eventloop_blocked_time_seconds:max", "max by (job) (<asyncio.eventloop.blocked.time>)"),
    ]
