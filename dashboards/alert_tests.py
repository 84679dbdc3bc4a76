"""Make two tests for `promtool test rules`: all alerts silent just below their thresholds, and firing just above.

The input series are made from the configuration's thresholds: an instance for each alert. The tests query `ALERTS`, the
series that Prometheus keeps of its alerts: so the alert's labels are compared too.
"""

from collections.abc import Callable
from typing import Any

import config
from alerts import ALERTS
from config import Threshold
from queries import LOOP, metric

INSTANCE = "a:9464"
WHO = f'job="shop",instance="{INSTANCE}"'
ON = f'{WHO},{LOOP}="main"'
LABELS = {"job": "shop", "instance": INSTANCE, LOOP: "main"}
MINUTES = 60 * 3
"""Enough for the longest window too: rates are constant, and a ratio of two rates is the same over any part of it."""
Inputs = dict[str, str]


def near(threshold: Threshold, above: bool) -> float:
    """Return a value two per cent above or below the threshold."""
    return threshold.value * (1.02 if above else 0.98)


def _counter(per_second: float, minutes: int = MINUTES, start: float = 0) -> str:
    return f"{start:g}+{per_second * 60:.9g}x{minutes}"


def _constant(value: float) -> str:
    return f"{value:.9g}x{MINUTES}"


def _series(name: str, labels: str, part: str = "") -> str:
    return f"{metric(name, part)}{{{labels}}}"


def _blocked(above: bool) -> Inputs:
    return {_series("asyncio.eventloop.blocked.time", ON): _constant(near(config.BLOCKED, above))}


def _lag(threshold: Threshold) -> Callable[[bool], Inputs]:
    def inputs(above: bool) -> Inputs:
        bad = near(threshold, above) * (1 - config.LAG_OBJECTIVE)
        name = "asyncio.eventloop.lag"
        return {
            _series(name, f'{ON},le="{config.LAG_BOUND:g}"', "bucket"): _counter(1000 * (1 - bad)),
            _series(name, ON, "count"): _counter(1000),
        }

    return inputs


def _time_blocked(above: bool) -> Inputs:
    blocked = near(config.TIME_BLOCKED, above)
    time, block_time = "asyncio.eventloop.time", "asyncio.eventloop.block.time"
    return {
        _series(time, f'{ON},state="idle"'): _counter(1 - blocked),
        _series(time, f'{ON},state="callback"'): _counter(blocked),
        _series(block_time, f'{ON},code_function_name="shop.export",cause="cpu"'): _counter(blocked / 2),
        _series(block_time, f'{ON},code_function_name="shop.report",cause="syscall"'): _counter(blocked / 2),
    }


def _saturated(above: bool) -> Inputs:
    busy = near(config.SATURATED, above)
    time = "asyncio.eventloop.time"
    return {
        _series(time, f'{ON},state="idle"'): _counter(1 - busy),
        _series(time, f'{ON},state="callback"'): _counter(busy),
    }


def _starved(above: bool) -> Inputs:
    labels = f'{ON},executor="anyio"'  # FastAPI's def routes
    return {
        _series("asyncio.executor.oldest_job.age", labels): _constant(near(config.STARVED, above)),
        _series("asyncio.executor.queue.length", labels): _constant(1),
    }


def _leaking(above: bool) -> Inputs:
    # An hour before the end the number goes up by the threshold, and stays.
    more = round(near(config.LEAKING, above))
    return {_series("asyncio.task.active", ON): f"50x{MINUTES - 60} {50 + more}x59"}


def _paused(above: bool) -> Inputs:
    return {
        _series("asyncio.transport.write_paused.time", ON): _counter(10 * near(config.PAUSED, above)),
        _series("asyncio.transport.active", f'{ON},network_transport="tcp",role="server"'): _constant(10),
    }


def _exceptions(above: bool) -> Inputs:
    labels = f'{ON},error_type="ValueError",origin="task"'
    rate = near(config.EXCEPTIONS, above)
    # No errors for hours, then so many.
    return {_series("asyncio.eventloop.exceptions", labels): f"0x{MINUTES - 10} {_counter(rate, 9)}"}


def _dropped(above: bool) -> Inputs:
    return {_series("obsloop.dropped", f'{WHO},what="executor"'): _counter(near(config.DROPPED, above) / (15 * 60))}


def _disabled(above: bool) -> Inputs:
    return {_series("obsloop.instrument.disabled", f'{WHO},what="on_slow_callback"'): _constant(1 if above else 0)}


def _gone(above: bool) -> Inputs:
    return {
        _series("asyncio.eventloop.utilization", ON): f"0.1x{MINUTES - 10} stale",
        f"up{{{WHO}}}": f"1x{MINUTES - 10} {'0' if above else '1'}x9",
    }


EXECUTOR = {**LABELS, "executor": "anyio"}
PROCESS = {"job": "shop", "instance": INSTANCE}
CASES: dict[str, tuple[Callable[[bool], Inputs], dict[str, str]]] = {
    "AsyncioLoopBlocked": (_blocked, LABELS),
    "AsyncioLagHigh": (_lag(config.LAG_FAST), LABELS),
    "AsyncioLagRising": (_lag(config.LAG_SLOW), LABELS),
    "AsyncioTimeBlocked": (_time_blocked, LABELS),
    "AsyncioLoopSaturated": (_saturated, LABELS),
    "AsyncioExecutorStarved": (_starved, EXECUTOR),
    "AsyncioTasksLeaking": (_leaking, LABELS),
    "AsyncioTransportsPaused": (_paused, LABELS),
    "AsyncioExceptionsRising": (_exceptions, LABELS),
    "AsyncioObserverDropping": (_dropped, {**PROCESS, "what": "executor"}),
    "AsyncioObserverDisabled": (_disabled, {**PROCESS, "what": "on_slow_callback"}),
    "AsyncioTargetGone": (_gone, PROCESS),
}


def document() -> dict[str, Any]:
    """Return the file that promtool reads."""
    return {
        "rule_files": ["rules.yaml", "alerts.yaml"],
        "evaluation_interval": "1m",
        "tests": [_test(above) for above in (False, True)],
    }


def _test(above: bool) -> dict[str, Any]:
    # One test of all, because promtool evaluates every rule in each test.
    return {
        "name": "firing just above" if above else "silent just below",
        "interval": "1m",
        "input_series": [
            {"series": _instance(series, alert.name), "values": values}
            for alert in ALERTS
            for series, values in CASES[alert.name][0](above).items()
        ],
        "promql_expr_test": [_expected(alert.name, alert.severity, above) for alert in ALERTS],
    }


def _expected(name: str, severity: str, above: bool) -> dict[str, Any]:
    firing = {"alertname": name, "alertstate": "firing", **CASES[name][1], "severity": severity}
    named = ",".join(f'{key}="{value}"' for key, value in firing.items())
    return {
        "expr": _instance(f'ALERTS{{alertname="{name}",alertstate="firing",instance="{INSTANCE}"}}', name),
        "eval_time": f"{MINUTES - 1}m",
        "exp_samples": [{"labels": _instance(f"ALERTS{{{named}}}", name), "value": 1}] if above else [],
    }


def _instance(series: str, name: str) -> str:
    """Return the series as one of the instance that is there for this alert alone."""
    return series.replace(INSTANCE, name)
