"""Counters and histograms of what happens rarely, by the labels of the catalogue: one set for each loop name.

For what happens often there are ``Counters``. Here counting takes a lock and may be done in any thread. Label values
that come from the program are bounded: who came first keeps its series, the rest is ``_OTHER`` and counted as folded.
(A counter that gave way to a busier one would go back, and rates over it would lie.)
"""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections.abc import Mapping

from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.catalog import METRICS, OTHER, Label, Metric
from obsloop.metrics.counters import STRIDE
from obsloop.metrics.snapshot import Histogram, Value

_BOUNDS = SECONDS.bounds
NEVER = -(1 << 63)
"""Stands for a time that there is not."""

RARE: Mapping[str, Metric] = {metric.name: metric for metric in METRICS if metric.labelled}


class _Table:
    """The series of one metric."""

    __slots__ = ("blocks", "counts", "metric", "values")

    def __init__(self, metric: Metric, values: dict[Label, set[str]]) -> None:
        self.metric = metric
        self.values = [values.setdefault(label, set(label.values)) for label in metric.labels]
        self.counts: dict[tuple[str, ...], int] = {}
        self.blocks: dict[tuple[str, ...], list[int]] = {}
        if all(label.values for label in metric.labels):  # all that there can be is there from the beginning
            for labels in itertools.product(*(label.values for label in metric.labels)):
                if metric.kind == "histogram":
                    self.blocks[labels] = [0] * STRIDE
                else:
                    self.counts[labels] = 0

    def collect(self) -> dict[tuple[str, ...], Value]:
        """In exported units."""
        if self.metric.kind == "histogram":
            return {labels: Histogram.from_block(SECONDS, block) for labels, block in self.blocks.items()}
        if self.metric.unit == "s":
            return {labels: ns / 1e9 for labels, ns in self.counts.items()}
        return dict(self.counts)


class LabelledMetrics:
    """The rare figures of one loop name."""

    __slots__ = ("_folded", "_lock", "_tables", "_values")

    def __init__(self) -> None:
        self.forked()

    def count(self, metric_name: str, *labels: str, n: int = 1) -> None:
        """``n`` more (nanoseconds, for a signal in seconds) in the counter ``metric_name`` with these label values."""
        with self._lock:
            table = self._tables[metric_name]
            labels = self._bounded(table, labels)
            table.counts[labels] = table.counts.get(labels, 0) + n

    def time(self, metric_name: str, duration_ns: int, *labels: str) -> None:
        """One more value in the histogram ``metric_name`` with these label values."""
        self.time_all((self.histogram(metric_name, *labels),), (duration_ns,))

    def histogram(self, metric_name: str, *labels: str) -> list[int]:
        """The block of that histogram with these label values: to be kept, where it is used often, for ``time_all``."""
        with self._lock:
            table = self._tables[metric_name]
            labels = self._bounded(table, labels)
            block = table.blocks.get(labels)
            if block is None:
                block = table.blocks[labels] = [0] * STRIDE
            return block

    def time_all(self, blocks: tuple[list[int], ...], durations_ns: tuple[int, ...]) -> None:
        """One more value in each of these blocks; ``NEVER`` is none."""
        with self._lock:
            for block, duration_ns in zip(blocks, durations_ns):  # noqa: B905 - strict would cost more than the rest
                if duration_ns > 0:  # what count_value does
                    block[bisect_left(_BOUNDS, duration_ns) + 1] += 1
                    block[0] += duration_ns
                elif duration_ns != NEVER:
                    block[bisect_left(_BOUNDS, 0) + 1] += 1

    def fitting(self, label: Label, value: str) -> str:
        """The value that ``value`` is shown as: for figures that are read off, and not counted here."""
        with self._lock:
            return self._fit(label, self._values[label], value)

    def shown(self, label: Label) -> list[str]:
        """The values that ``label`` is shown with so far, ``_OTHER`` where there have been more."""
        with self._lock:
            values = sorted(self._values[label])
            return [*values, OTHER] if self._folded.get(label.name) else values

    def collect(self) -> dict[str, dict[tuple[str, ...], Value]]:
        """All series, by metric."""
        with self._lock:
            return {name: table.collect() for name, table in self._tables.items()}

    def folded(self, label_name: str) -> int:
        """How many values of this label went into ``_OTHER``."""
        return self._folded.get(label_name, 0)

    def forked(self) -> None:
        """Start from nothing."""
        # Re-entrant: the garbage collector may come in between, and with it a task whose error nobody asked for.
        self._lock = threading.RLock()
        self._folded: dict[str, int] = {}
        self._values: dict[Label, set[str]] = {}
        """Of each label, what it has been: metrics with the same label show the same values, and fold the same."""
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
