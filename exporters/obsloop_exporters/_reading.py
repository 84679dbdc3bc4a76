"""Convert snapshots to the values of one scrape: plain numbers and label values, checked, for each family.

If a value cannot be read, only that metric of that loop is left out, and the rest is answered. An exception out of a
collector would cost the program its own metrics too. Nothing here knows a text format or prometheus_client.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, ParamSpec, TypeVar

import obsloop
from obsloop import Exemplar, Histogram, Snapshot
from obsloop_exporters._common import bucket_within, encodable, latest
from obsloop_exporters._families import Family, families

_UTILIZATION = "asyncio.eventloop.utilization"

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = logging.getLogger("obsloop.exporters")


class Buckets(NamedTuple):
    """A classic histogram."""

    counts: tuple[int, ...]
    """Cumulative, one for each of ``Family.bound_texts``; the last is the count of all."""
    sum: float
    exemplars: Mapping[int, Exemplar] = {}
    """By the bucket's index in ``counts``."""


class Series(NamedTuple):
    """One series: label values in the order of ``Family.label_names``, and the value."""

    labels: tuple[str, ...]
    value: float | Buckets


Reading = list[tuple[Family, list[Series]]]


_Key = tuple[str, ...]
"""The loop's name; in a group, the loop's name and the worker's number."""


class _Now(NamedTuple):
    """The snapshots of one reading."""

    loops: Mapping[_Key, Snapshot]
    """By loop name: in a group, those of all workers added up."""
    workers: Mapping[_Key, Snapshot]
    """By loop name and worker; outside of a group the same as `loops`."""
    process: Snapshot | None
    grouped: bool


class _Previous:
    """The last reading of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Held while snapshots are taken, so that readings are in order. Re-entrant, since a signal handler may scrape.
        self.lock = threading.RLock()
        self.snapshots: Mapping[_Key, Snapshot] = {}


class Reader:
    """One reader of obsloop's metrics, for any thread. Utilization is since this reader's last reading."""

    def __init__(
        self, seconds_buckets: Iterable[float] | None = None, count_buckets: Iterable[float] | None = None
    ) -> None:
        self._bounds = (
            None if seconds_buckets is None else tuple(seconds_buckets),
            None if count_buckets is None else tuple(count_buckets),
        )
        # All of the catalogue, so that any wrong bound is refused now.
        self._families = obsloop.METRICS, False, families(*self._bounds)
        self._previous = _Previous()
        self._told: set[str] = set()

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that are exported now, in the catalogue's order."""
        return self._exported(self._families[1])

    def _exported(self, grouped: bool) -> tuple[Family, ...]:
        metrics, with_workers, found = self._families
        wanted = obsloop.exported_metrics()
        if wanted is not metrics or grouped != with_workers:  # the first loop may be made after the collector
            found = families(*self._bounds, wanted, workers=grouped)
            self._families = wanted, grouped, found
        return found

    def read(self) -> Reading:
        """Read all exported families. One whose values are missing or wrong is empty."""
        now, previous = self._take()
        reading: Reading = []
        for family in self._exported(now.grouped):
            series: list[Series] = []
            name = family.metric.name
            if family.metric.scope == "process":
                if now.process is not None:
                    series += self._attempt(name, _series, family, (), now.process, None) or ()
            else:
                for key, snapshot in (now.workers if family.metric.per_worker else now.loops).items():
                    series += self._attempt(name, _series, family, key, snapshot, previous.get(key)) or ()
            reading.append((family, series))
        return reading

    def _take(self) -> tuple[_Now, Mapping[_Key, Snapshot]]:
        """Return the snapshots of now, which are kept, and of the last reading."""
        state = self._previous
        if state.pid != os.getpid():
            # After a fork the metrics begin anew, and a thread that is not in the child may hold the lock.
            self._previous = state = _Previous()
        with state.lock:
            now = self._now()
            previous, state.snapshots = state.snapshots, now.workers
        return now, previous

    def _now(self) -> _Now:
        group = self._attempt("group_snapshots()", obsloop.group_snapshots)
        if group is None:
            found = self._attempt("snapshots()", obsloop.snapshots) or {}
            loops: dict[_Key, Snapshot] = {(name,): snapshot for name, snapshot in found.items()}
            process = self._attempt("process_snapshot()", obsloop.process_snapshot)
            return _Now(loops, loops, process, grouped=False)
        workers: dict[_Key, Snapshot] = {
            (name, str(number)): snapshot for (number, name), snapshot in group.workers.items()
        }
        loops = {(name,): snapshot for name, snapshot in group.loops.items()}
        return _Now(loops, workers, group.process, grouped=True)

    def _attempt(self, what: str, read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        try:
            return read(*args, **kwargs)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if what not in self._told:  # once, not at every scrape
                self._told.add(what)
                try:
                    _log.warning("left out of /metrics: %s: %r", what, error, exc_info=True)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException:  # noqa: S110  a logging handler of the program's
                    pass
            return None


def _series(family: Family, key: _Key, snapshot: Snapshot, previous: Snapshot | None) -> list[Series]:
    """Return every series of ``family`` that is exported from ``snapshot``."""
    loop = tuple(map(encodable, key))
    if family.metric.name == _UTILIZATION:
        gone = len(key) > 1 and not snapshot.running
        return [] if gone else [Series(loop, snapshot.utilization(previous))]
    result: list[Series] = []
    for values, value in snapshot.exported(family.metric).items():
        labels = (*loop, *map(encodable, values))
        if len(labels) != len(family.label_names):
            raise ValueError(f"{len(labels)} label values {labels!r} for {family.label_names!r}")
        if isinstance(value, Histogram) != (family.type == "histogram"):
            raise TypeError(f"expected a {family.type}, got {value!r}")
        if isinstance(value, Histogram):
            counts = (*value.cumulative(family.bounds), value.count)
            exemplars = latest(value.exemplars, bucket_within(family.bounds)) if value.exemplars else {}
            result.append(Series(labels, Buckets(counts, float(value.sum), exemplars)))
        else:
            result.append(Series(labels, float(value)))
    return result
