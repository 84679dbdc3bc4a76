"""Exemplars: each slow bucket of a histogram gets the trace of one real case, which leads from a bar to a cause.

No code here runs for fast callbacks. A case is kept on paths that are slow anyway: for a slow callback, with its own
delay if that was long, too; for a job that waited long for a worker; and, after a slow callback, for the callbacks that
waited behind it, which may be fast themselves. ``slow_callback_duration`` says what is slow. OpenTelemetry is used if
the program has loaded it, and never imported.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.snapshot import Exemplar, Histogram

if TYPE_CHECKING:
    from obsloop.introspect.spans import Ids
    from obsloop.metrics.snapshot import Value


class Exemplars:
    """The exemplars of one loop name: the latest for each series and each bucket, so their number is bounded.

    Any loop's thread writes, any thread reads. There is no lock: a write is one atomic step, and so is a reader's copy.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...], int], Exemplar] = {}

    def note(self, signal_name: str, labels: tuple[str, ...], value_ns: int, ids: Ids) -> None:
        """Keep a value as an exemplar: it was counted in that series, or soon will be, and happened in that span."""
        bucket = SECONDS.index(value_ns)
        self._kept[signal_name, labels, bucket] = Exemplar(value_ns / 1e9, time.time(), *ids)

    def put_into(self, data: dict[str, dict[tuple[str, ...], Value]]) -> None:
        """Add exemplars to a snapshot's histograms. A value that was not counted yet waits for the next snapshot."""
        found: dict[tuple[str, tuple[str, ...]], list[Exemplar]] = {}
        for (name, labels, bucket), exemplar in self._kept.copy().items():
            histogram = data[name].get(labels)
            if isinstance(histogram, Histogram) and histogram.bucket_counts[bucket]:
                found.setdefault((name, labels), []).append(exemplar)
        for (name, labels), exemplars in found.items():
            histogram = data[name][labels]
            if isinstance(histogram, Histogram):
                data[name][labels] = replace(histogram, exemplars=tuple(sorted(exemplars)))
