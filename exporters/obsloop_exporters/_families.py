"""Derive Prometheus's families from the catalogue: name, type, unit, labels and buckets of each metric.

This happens when a collector is made, from ``obsloop.METRICS`` alone, and again if fewer are to be exported. A wrong
bucket bound is refused then. No value is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from prometheus_client import utils

from obsloop import LOOP_NAME_LABEL, METRICS, Metric
from obsloop_exporters._common import bounds_for

# The values of `le` are part of a series' identity, so they are written by prometheus_client's own function.
_utils: Any = utils  # not typed there
number: Callable[[float], str] = _utils.floatToGoString
"""Write a number as the text formats do."""

WORKER_LABEL = "worker"
"""The number of a process in its group. Its successor has the same."""

Type = Literal["counter", "gauge", "histogram"]

_TYPES: dict[str, Type] = {
    "counter": "counter",
    "updowncounter": "gauge",
    "gauge": "gauge",
    "histogram": "histogram",
}
_UNITS = {"s": "seconds", "By": "bytes"}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as Prometheus knows it."""

    metric: Metric
    name: str
    """As in OpenMetrics: with the unit, and without a counter's ``_total``."""
    type: Type
    unit: str
    label_names: tuple[str, ...]
    """The loop's name first and then the worker, if the metric has them; then in the order of ``Metric.labels``."""
    bounds: tuple[float, ...]
    """The upper bounds of a histogram, without +Inf, ascending."""
    bound_texts: tuple[str, ...]
    """A histogram's values of the label ``le``, with +Inf."""

    @property
    def help(self) -> str:
        """The catalogue's text."""
        return self.metric.help


def families(
    seconds_buckets: Iterable[float] | None = None,
    count_buckets: Iterable[float] | None = None,
    metrics: Iterable[Metric] | None = None,
    *,
    workers: bool = False,
) -> tuple[Family, ...]:
    """Return one family for each metric (by default the catalogue's), with the metric's bounds if none are given.

    With `workers`, the families that have one series for each process of a group get the label ``worker``.

    A bound at which obsloop's buckets cannot be summed exactly raises ``ValueError``.
    """
    seconds = None if seconds_buckets is None else tuple(seconds_buckets)
    counts = None if count_buckets is None else tuple(count_buckets)
    return tuple(
        _family(metric, bounds_for(metric, seconds, counts), workers=workers)
        for metric in (METRICS if metrics is None else metrics)
    )


def _family(metric: Metric, bounds: tuple[float, ...], *, workers: bool) -> Family:
    name, unit = _plain(metric.name), _unit(metric)
    if metric.kind != "histogram" and name.endswith("_count"):
        # In OpenTelemetry "count" means how many there are. In Prometheus it is the suffix of a histogram's series, and
        # promtool refuses it elsewhere: Prometheus uses the plural, as in go_threads, process_open_fds.
        name = f"{name.removesuffix('_count')}s"
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    labels = tuple(_plain(label.name) for label in metric.labels)
    if workers and metric.per_worker:
        labels = (WORKER_LABEL, *labels)
    if metric.scope == "loop":
        labels = (_plain(LOOP_NAME_LABEL), *labels)
    texts = tuple(number(bound) for bound in (*bounds, inf)) if metric.kind == "histogram" else ()
    return Family(metric, name, _TYPES[metric.kind], unit, labels, bounds, texts)


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _unit(metric: Metric) -> str:
    """Return the suffix by OpenTelemetry's rules for Prometheus: braces hold a remark, which is no unit."""
    if metric.unit.startswith("{"):
        return ""
    if metric.unit == "1":
        return "ratio" if metric.kind == "gauge" else ""
    try:
        return _UNITS[metric.unit]
    except KeyError:
        raise ValueError(
            f"{metric.name}: no Prometheus word is known for the unit {metric.unit!r}; there are {', '.join(_UNITS)}"
        ) from None
