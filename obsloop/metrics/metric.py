"""One entry of the catalogue: a metric, its labels, and how it is exported."""

from dataclasses import dataclass
from typing import Literal

from obsloop.base.settings import Level
from obsloop.metrics.buckets import COUNTS, SECONDS

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]
"""Updowncounters can be summed over loops and processes, gauges cannot."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label, with all values that it can have; or, if its values come from the program, with their maximum number."""

    name: str
    values: tuple[str, ...] = ()
    """All its values; each has a value in snapshots from the start. Empty if the values come from the program."""
    bound: int = 0
    """How many values may come from the program, without ``_OTHER``, which stands for the rest."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue."""

    name: str
    kind: Kind
    unit: str
    """In UCUM, as OpenTelemetry requires: ``s``, ``1``, or a plain count in braces."""
    help: str
    """The meaning and, for a time, when it starts and ends."""
    labels: tuple[Label, ...] = ()
    """The labels without the loop's name, which every metric of scope ``loop`` has."""
    scope: Literal["loop", "process"] = "loop"
    labelled: bool = False
    """Whether it is counted when it happens (``metrics.labelled``), and not read from the loop's counters."""
    buckets: tuple[float, ...] = ()
    """For a histogram: the default upper bounds of exports, in its unit, without +Inf. This is OpenTelemetry's advisory
    parameter ``ExplicitBucketBoundaries``."""
    level: Level = "full"
    """The lowest value of the setting ``metrics`` with which it is exported."""
    basic_buckets: tuple[float, ...] = ()
    """For a histogram of level ``basic``: the bounds that it has instead of ``buckets`` with the setting ``basic``."""
    per_worker: bool = False
    """Whether a group of processes exports it for each of them, with the label ``worker``. Others are added up."""
    from_start: bool = False
    """Whether its series are exported before anything has happened. Others begin with the first event, since most
    programs never use most of them. An alert on the rate of a counter needs a zero before the first event."""
    counted_by: str = ""
    """For an updowncounter with labels: the counter with the same labels whose events change it. It says that a 0 means
    no more, and not never."""

    @property
    def bounds(self) -> tuple[float, ...]:
        """All decimal bounds, in its unit, with which a histogram can be exported exactly; empty for other kinds."""
        if self.kind != "histogram":
            return ()
        return (SECONDS if self.unit == "s" else COUNTS).decimal_bounds
