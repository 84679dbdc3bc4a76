"""Which metrics this process exports: the setting ``metrics``, ``basic`` or ``full``.

Snapshots have all metrics at either level. The setting belongs to the process, since all its loops share one exporter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from obsloop.base.environment import variable_of
from obsloop.base.settings import DEFAULT_LEVEL, Level, Settings
from obsloop.metrics.catalog import METRICS
from obsloop.metrics.metric import Metric

_EXPORTED: Mapping[Level, tuple[Metric, ...]] = {
    "basic": tuple(
        replace(metric, buckets=metric.basic_buckets or metric.buckets) for metric in METRICS if metric.level == "basic"
    ),
    "full": METRICS,
}
_VARIABLE = variable_of("metrics")
_chosen: Level | None = None


def choose(level: Level | None) -> None:
    """Take the level from the settings of a new loop. The first loop that has one decides."""
    global _chosen  # noqa: PLW0603 - one level for the whole process
    if _chosen is None:
        _chosen = level


def exported_metrics() -> tuple[Metric, ...]:
    """Return the metrics that exporters export, in the catalogue's order, with the buckets of the process's level.

    As long as the level stays the same, this is the same object. Before the first loop is made, the level is that of
    ``OBSLOOP_METRICS``.
    """
    return _EXPORTED[_chosen or _level_of(os.environ.get(_VARIABLE, ""))]


@lru_cache(maxsize=4)
def _level_of(text: str) -> Level:
    """Return the level that the variable's text means. Each scrape asks."""
    return Settings.from_env({_VARIABLE: text}, strict=False).metrics or DEFAULT_LEVEL
