"""Export to Prometheus: a collector for the program's registry, and the exporter of obsloop's service.

    prometheus_client.REGISTRY.register(obsloop_exporters.prometheus.Collector())

Families are built at a scrape, from snapshots; no prometheus_client instrument is touched while a loop runs. Only the
part that faces prometheus_client is here: ``_families`` has names and buckets, ``_reading`` reads the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)

from obsloop_exporters._families import Family
from obsloop_exporters._reading import Buckets, Reader, Series
from obsloop_exporters._text import render

__all__ = ["Collector", "Exporter"]

_PLAIN, _OPENMETRICS = "text/plain", "application/openmetrics-text"
# For a client that asks for none of the formats that are written here.
_DEFAULT = f"{_PLAIN}; version=0.0.4; charset=utf-8"
# The schemes that leave names such as obsloop's unchanged. `dots` doubles their underscores, so that a counter no
# longer ends in `_total`: prometheus_client writes such a page, and its own parser refuses it.
_ESCAPINGS = ("underscores", "allow-utf-8", "values")


class Collector:
    """A custom collector: every metric that this process exports (``obsloop.Settings.metrics``), for every loop name.

    ``seconds_buckets`` and ``count_buckets`` are the upper bounds of all histograms of times and of counts. Without
    them, each histogram has its own (``obsloop.Metric.buckets``). A bound must be exact for obsloop: 1, 2.5 or 5 times
    a power of ten seconds; a count of 1, 2 or 5 times a power of ten. Another one raises ``ValueError``, which lists
    them.

    Utilization is since this collector's last scrape. If several scrapers ask one collector, they shorten one another's
    interval: use the rate of ``asyncio_eventloop_time_seconds_total`` then.
    """

    def __init__(
        self,
        *,
        seconds_buckets: Iterable[float] | None = None,
        count_buckets: Iterable[float] | None = None,
    ) -> None:
        self._reader = Reader(seconds_buckets, count_buckets)

    def describe(self) -> Iterator[Metric]:
        """Return the families without values, for the registration, before anything is read."""
        return map(_empty, self._reader.families)

    def collect(self) -> Iterator[Metric]:
        """Yield the families with the values of now. A value that cannot be read is left out, and logged once."""
        for family, series in self._reader.read():
            metric = _empty(family)
            metric.samples = _samples(family, series)
            yield metric


class Exporter:
    """The exporter that obsloop's service asks for /metrics: the metrics of one ``Collector`` and nothing else."""

    def __init__(self) -> None:
        self._collector = Collector()

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """Return content type and body, in the format that a client with the header ``Accept: accept`` prefers."""
        content_type = negotiate(accept or "")
        return content_type, render(self._collector._reader.read(), openmetrics=content_type.startswith(_OPENMETRICS))


def negotiate(accept: str) -> str:
    """Return the content type of an answer, one that ``_text`` writes: text 0.0.4 and 1.0.0, OpenMetrics 1.0.0.

    If a choice asks for another version, the header's next choice counts. If none is left, the answer is text 0.0.4,
    which every scraper reads. An escaping scheme that is not supported is never announced.
    """
    # The sort keeps the client's order among choices of the same weight.
    for media, parameters in sorted(map(_choice, accept.split(",")), key=_weight, reverse=True):
        if _weight((media, parameters)) <= 0:
            break
        version, escaping = parameters.get("version"), parameters.get("escaping", "")
        escaped = f"; escaping={escaping if escaping in _ESCAPINGS else _ESCAPINGS[0]}"
        if media == _OPENMETRICS and version in (None, "", "1.0.0"):
            return f"{_OPENMETRICS}; version=1.0.0; charset=utf-8{escaped if version else ''}"
        if media == _PLAIN and version == "1.0.0":
            return f"{_PLAIN}; version=1.0.0; charset=utf-8{escaped}"
        if media == _PLAIN and version in (None, "", "0.0.4"):
            return _DEFAULT
    return _DEFAULT


_Choice = tuple[str, dict[str, str]]


def _choice(text: str) -> _Choice:
    """Return media type and parameters of one part of an Accept header."""
    media, *rest = (part.strip() for part in text.split(";"))
    pairs = [part.partition("=") for part in rest]
    return media.lower(), {name.strip().lower(): value.strip().strip('"').lower() for name, _, value in pairs}


def _weight(choice: _Choice) -> float:
    try:
        weight = float(choice[1].get("q", 1.0))
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0  # also for NaN


def _empty(family: Family) -> Metric:
    if family.type == "counter":
        return CounterMetricFamily(family.name, family.help, labels=family.label_names, unit=family.unit)
    if family.type == "gauge":
        return GaugeMetricFamily(family.name, family.help, labels=family.label_names, unit=family.unit)
    return HistogramMetricFamily(family.name, family.help, labels=family.label_names, unit=family.unit)


def _samples(family: Family, all_series: list[Series]) -> list[Sample]:
    # The same samples as the families' `add_metric` makes, without its several dictionaries for each bucket.
    samples: list[Sample] = []
    name = f"{family.name}_total" if family.type == "counter" else family.name
    for values, value in all_series:
        labels = dict(zip(family.label_names, values, strict=True))
        if isinstance(value, Buckets):
            first = len(samples)
            samples += [
                Sample(f"{name}_bucket", {**labels, "le": bound}, count)
                for bound, count in zip(family.bound_texts, value.counts, strict=True)
            ]
            for place, (of, at, trace_id, span_id) in value.exemplars.items():
                exemplar = Exemplar({"trace_id": trace_id, "span_id": span_id}, of, at)
                samples[first + place] = samples[first + place]._replace(exemplar=exemplar)
            samples.append(Sample(f"{name}_count", labels, value.counts[-1]))
            samples.append(Sample(f"{name}_sum", labels, value.sum))
        else:
            samples.append(Sample(name, labels, value))
    return samples
