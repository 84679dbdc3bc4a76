"""Counters and histograms of rare things, by the labels of the catalogue: one set for each loop name.

Frequent things are counted in ``Counters``. Here counting takes a lock, and any thread may count. Label values that
come from the program are bounded: the first ones keep their series, the rest is ``_OTHER`` and counted as folded. (If a
counter were replaced by a busier one, it would go back, and rates over it would be wrong.)
"""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections.abc import Mapping

from obsloop.base import clock
from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.catalog import METRICS, OTHER
from obsloop.metrics.counters import STRIDE
from obsloop.metrics.metric import Label, Metric
from obsloop.metrics.snapshot import Histogram, Value

_BOUNDS = SECONDS.bounds
NEVER = -(1 << 63)
"""Stands for a missing time."""

RECENT_NS = 120_000_000_000
"""How long a value counts for a gauge, at least, and at most twice as long: so each reader sees it, however often it
reads."""

RARE: Mapping[str, Metric] = {metric.name: metric for metric in METRICS if metric.labelled}


class _Largest:
    """The largest value of the last minutes, in two halves: the present one and the one before."""

    __slots__ = ("_before", "_half", "_now")

    def __init__(self) -> None:
        self._half: int = 0
        self._now = self._before = 0

    def add(self, value: int) -> None:
        self._go_on()
        self._now = max(self._now, value)

    def value(self) -> int:
        self._go_on()
        return max(self._now, self._before)

    def _go_on(self) -> None:
        half = clock.REAL() // RECENT_NS
        if half != self._half:
            self._before = self._now if half == self._half + 1 else 0
            self._half, self._now = half, 0


class _Table:
    """The series of one metric."""

    __slots__ = ("blocks", "counts", "largest", "metric", "values")

    def __init__(self, metric: Metric, values: dict[Label, set[str]]) -> None:
        self.metric = metric
        self.values = [values.setdefault(label, set(label.values)) for label in metric.labels]
        self.counts: dict[tuple[str, ...], int] = {}
        self.blocks: dict[tuple[str, ...], list[int]] = {}
        self.largest: dict[tuple[str, ...], _Largest] = {}
        if all(label.values for label in metric.labels):  # all possible series exist from the start
            for labels in itertools.product(*(label.values for label in metric.labels)):
                if metric.kind == "histogram":
                    self.blocks[labels] = [0] * STRIDE
                else:
                    self.counts[labels] = 0

    def collect(self) -> dict[tuple[str, ...], Value]:
        """Return the values by label values, in exported units."""
        if self.metric.kind == "histogram":
            return {labels: Histogram.from_block(SECONDS, block) for labels, block in self.blocks.items()}
        if self.metric.kind == "gauge":
            return {labels: recent.value() / 1e9 for labels, recent in self.largest.items()}
        if self.metric.unit == "s":
            return {labels: ns / 1e9 for labels, ns in self.counts.items()}
        return dict(self.counts)


class LabelledMetrics:
    """The labelled metrics of one loop name."""

    __slots__ = ("_folded", "_lock", "_tables", "_values")

    def __init__(self) -> None:
        self.forked()

    def count(self, metric_name: str, *labels: str, n: int = 1) -> None:
        """Add ``n`` to the counter ``metric_name`` with these label values. For a metric in seconds, in nanoseconds."""
        table = self._tables[metric_name]
        counts = table.counts
        if labels in counts:  # then each value is one that is shown
            counts[labels] += n  # no call in between: no other thread runs meanwhile
            return
        with self._lock:
            labels = self._bounded(table, labels)
            counts.setdefault(labels, 0)
            counts[labels] += n

    def largest(self, metric_name: str, duration_ns: int, *labels: str) -> None:
        """Keep a value for the gauge ``metric_name`` with these label values, if it is the largest one for now."""
        with self._lock:
            table = self._tables[metric_name]
            labels = self._bounded(table, labels)
            recent = table.largest.get(labels)
            if recent is None:
                recent = table.largest[labels] = _Largest()
            recent.add(duration_ns)

    def time(self, metric_name: str, duration_ns: int, *labels: str) -> None:
        """Add a value to the histogram ``metric_name`` with these label values."""
        self.time_all((self.histogram(metric_name, *labels),), (duration_ns,))

    def histogram(self, metric_name: str, *labels: str) -> list[int]:
        """Return the histogram's block with these label values. Frequent callers keep it, for ``time_all``."""
        with self._lock:
            table = self._tables[metric_name]
            block = table.blocks.get(labels)
            if block is None:  # else each value is one that is shown
                labels = self._bounded(table, labels)
                block = table.blocks.get(labels)
            if block is None:
                block = table.blocks[labels] = [0] * STRIDE
            return block

    def time_all(self, blocks: tuple[list[int], ...], durations_ns: tuple[int, ...]) -> None:
        """Add to each of these blocks its value; ``NEVER`` adds none."""
        with self._lock:
            for block, duration_ns in zip(blocks, durations_ns):  # noqa: B905 - strict would cost more than the rest
                if duration_ns > 0:  # as count_value does
                    block[bisect_left(_BOUNDS, duration_ns) + 1] += 1
                    block[0] += duration_ns
                elif duration_ns != NEVER:
                    block[bisect_left(_BOUNDS, 0) + 1] += 1

    def fitting(self, label: Label, value: str) -> str:
        """Return the label value under which ``value`` is shown. For metrics that are computed and not counted here."""
        with self._lock:
            return self._fit(label, self._values[label], value)

    def shown(self, label: Label) -> list[str]:
        """Return the values of ``label`` so far, with ``_OTHER`` if there were more than its bound."""
        with self._lock:
            values = sorted(self._values[label])
            return [*values, OTHER] if self._folded.get(label.name) else values

    def collect(self) -> dict[str, dict[tuple[str, ...], Value]]:
        """Return all series, by metric."""
        with self._lock:
            return {name: table.collect() for name, table in self._tables.items()}

    def folded(self, label_name: str) -> int:
        """Return how many times a value of this label was counted under ``_OTHER``."""
        return self._folded.get(label_name, 0)

    def forked(self) -> None:
        """Start from nothing."""
        # Re-entrant: a garbage collection may start here and drop a task with an exception that was never retrieved.
        self._lock = threading.RLock()
        self._folded: dict[str, int] = {}
        self._values: dict[Label, set[str]] = {}
        """The values of each label so far. Metrics with the same label show the same values, and fold the same ones."""
        self._tables = {name: _Table(metric, self._values) for name, metric in RARE.items()}

    def _bounded(self, table: _Table, labels: tuple[str, ...]) -> tuple[str, ...]:
        for i, label in enumerate(table.metric.labels):
            value = self._fit(label, table.values[i], labels[i])
            if value == OTHER != labels[i]:
                self._folded[label.name] = self._folded.get(label.name, 0) + 1
                labels = (*labels[:i], OTHER, *labels[i + 1 :])
        return labels

    def _fit(self, label: Label, values: set[str], value: str) -> str:
        if value in values:
            return value
        if label.bound and len(values) < label.bound:
            values.add(value)
            return value
        return OTHER
