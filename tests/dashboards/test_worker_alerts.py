"""Alerts on a group of processes name the worker. Alerts on a process that is in no group name none."""

import os
import subprocess

import pytest
import yaml

from tests.dashboards.test_generated import GENERATED, modules
from tests.parts import needed

__all__ = ["modules"]
pytestmark = [pytest.mark.clients, pytest.mark.once]
LOOP = "asyncio_eventloop_name"


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """One input series; empty labels are left out."""
    every = {"job": "shop", "instance": "a:9464", LOOP: "main", **labels}
    inside = ",".join(f'{key}="{value}"' for key, value in every.items() if value)
    return {"series": f"{name}{{{inside}}}", "values": values}


def lag(worker: str, late: float) -> list[dict[str, str]]:
    """Of 1,000 arrivals a second, such a share is late."""
    name = "asyncio_eventloop_lag_seconds"
    good = 60_000 * (1 - late)
    return [
        series(f"{name}_bucket", f"0+{good:.0f}x200", worker=worker, le="0.1"),
        series(f"{name}_count", "0+60000x200", worker=worker),
    ]


def times(worker: str, busy: float) -> list[dict[str, str]]:
    """Such a share of the time is not idle."""
    name = "asyncio_eventloop_time_seconds_total"
    return [
        series(name, f"0+{60 * (1 - busy):g}x200", worker=worker, state="idle"),
        series(name, f"0+{60 * busy:g}x200", worker=worker, state="callback"),
    ]


def judge(tmp_path, modules, name: str, inputs: list[dict[str, str]], expected: list[tuple[str, str, str]]) -> None:
    """Let promtool compare an alert's labels and texts, for each `(worker, summary, description)`."""
    (alert,) = [each for each in modules[0].ALERTS if each.name == name]
    alerts = [
        {
            "exp_labels": {
                "job": "shop", "instance": "a:9464", LOOP: "main", "severity": alert.severity,
                **({"worker": worker} if worker else {}),
            },
            "exp_annotations": {"summary": summary, "description": text, "runbook_url": alert.runbook_url},
        }
        for worker, summary, text in expected
    ]  # fmt: skip
    document = {
        "rule_files": [str(GENERATED / "rules.yaml"), str(GENERATED / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "alert_rule_test": [{"eval_time": "179m", "alertname": name, "exp_alerts": alerts}],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document, width=10_000))
    command = [needed("promtool", "prometheus"), "test", "rules", os.fspath(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


BLOCKED = "One callback has held the loop for 3s. Nothing else on the loop runs meanwhile."
LATE = (
    "A request that arrived in the last hour had to wait longer than 0.1 s for the loop in {} of the time;"
    " 0.5% is allowed."
)
BUSY = "It was busy for {} of the last five minutes. More load only makes it queue."


def test_a_blocked_worker_is_named(tmp_path, modules):
    """Only the one that is blocked."""
    name = "asyncio_eventloop_blocked_time_seconds"
    inputs = [series(name, f"{3 if worker == '2' else 0}x200", worker=worker) for worker in "0123"]
    summary = "The loop main of worker 2 of a:9464 (shop) is blocked now"
    judge(tmp_path, modules, "AsyncioLoopBlocked", inputs, [("2", summary, BLOCKED)])


def test_the_lag_of_the_sum_alerts_and_the_worst_worker_is_named(tmp_path, modules):
    """One of four is late for 40 % of its arrivals: a tenth of all."""
    inputs = [each for worker in "0123" for each in lag(worker, 0.4 if worker == "3" else 0.0)]
    summary = "Requests wait too long for the loop main of a:9464 (shop)"
    text = LATE.format("10%") + " Worker 3 was the worst in the last five minutes, with 40%."
    judge(tmp_path, modules, "AsyncioLagHigh", inputs, [("", summary, text)])


def test_a_busy_worker_among_idle_ones_is_named(tmp_path, modules):
    """On the sum it would be a quarter."""
    inputs = [each for worker in "0123" for each in times(worker, 0.95 if worker == "1" else 0.05)]
    summary = "The loop main of worker 1 of a:9464 (shop) is near saturation"
    judge(tmp_path, modules, "AsyncioLoopSaturated", inputs, [("1", summary, BUSY.format("95%"))])


def test_without_a_group_no_worker_is_named(tmp_path, modules):
    """The label is missing, and every text is complete."""
    name = "asyncio_eventloop_blocked_time_seconds"
    judge(
        tmp_path, modules, "AsyncioLoopBlocked", [series(name, "3x200")],
        [("", "The loop main of a:9464 (shop) is blocked now", BLOCKED)],
    )  # fmt: skip
    summary = "Requests wait too long for the loop main of a:9464 (shop)"
    judge(tmp_path, modules, "AsyncioLagHigh", lag("", 0.1), [("", summary, LATE.format("10%"))])
    summary = "The loop main of a:9464 (shop) is near saturation"
    judge(tmp_path, modules, "AsyncioLoopSaturated", times("", 0.95), [("", summary, BUSY.format("95%"))])
