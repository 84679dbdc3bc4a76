"""Exemplars: to a histogram's slow buckets the trace of one real case each, so that one gets from a bar to a cause.

Nothing here runs for what was fast. A case is kept where it is on a slow path anyway: a callback that took long, with
its own delay where that was long too; a job that waited long for a worker; and, when a slow callback has ended, what
waits behind it and was delayed by it, which may be as fast as it likes. Slow is what ``slow_callback_duration`` says.
OpenTelemetry is looked at where the program has loaded it, and never imported.
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
    """Those of one loop name: for each series and each bucket of the partition the latest, and so never more of them.

    Any loop's thread writes, any thread reads; no lock: a writer takes one atomic step, a reader copies in one.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...], int], Exemplar] = {}

    def note(self, signal_name: str, labels: tuple[str, ...], value_ns: int, ids: Ids) -> None:
        """This value has been counted, or soon will be, in that series; it happened in that span."""
        bucket = SECONDS.index(value_ns)
        self._kept[signal_name, labels, bucket] = Exemplar(value_ns / 1e9, time.time(), *ids)

    def put_into(self, data: dict[str, dict[tuple[str, ...], Value]]) -> None:
        """Give the histograms of a snapshot theirs; what has not been counted yet is for the next one."""
        found: dict[tuple[str, tuple[str, ...]], list[Exemplar]] = {}
        for (name, labels, bucket), exemplar in self._kept.copy().items():
            histogram = data[name].get(labels)
            if isinstance(histogram, Histogram) and histogram.bucket_counts[bucket]:
                found.setdefault((name, labels), []).append(exemplar)
        for (name, labels), exemplars in found.items():
            histogram = data[name][labels]
            if isinstance(histogram, Histogram):
                data[name][labels] = replace(histogram, exemplars=tuple(sorted(exemplars)))
