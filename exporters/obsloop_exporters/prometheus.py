"""Prometheus: a collector for a registry that the program has, and the exporter of obsloop's own service.

    prometheus_client.REGISTRY.register(obsloop_exporters.prometheus.Collector())

Families are built at a scrape, from snapshots; no prometheus_client instrument is touched while a loop runs.
Here is only what faces prometheus_client: names and buckets are settled in ``_families``, figures are read in
``_reading``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)
from prometheus_client.exposition import choose_encoder

from obsloop_exporters._families import Family, families
from obsloop_exporters._reading import Buckets, Reader, Series
from obsloop_exporters._text import render

__all__ = ["Collector", "Exporter"]

# What `_text` writes: versions in which these families look as they do in 0.0.4 and in OpenMetrics 1.0.
_TEXT_VERSIONS = {("text/plain", "0.0.4"), ("text/plain", "1.0.0")}
_OPENMETRICS_VERSIONS = {("application/openmetrics-text", "1.0.0")}
# Schemes that leave names like ours as they are. (`dots` doubles their underscores.)
_ESCAPINGS = {None, "underscores", "allow-utf-8", "values"}


class Collector:
    """A custom collector: every signal of obsloop's catalogue, for every loop name of this process.

    ``seconds_buckets`` and ``count_buckets`` are the upper bounds of all histograms of times and of counts; where
    they are not given, each histogram has its own (``obsloop.Signal.buckets``). Each must be one that obsloop can
    give exactly (1, 2.5 or 5 times a power of ten seconds; a count of 1, 2 or 5 times a power of ten);
    ``ValueError`` says which there are.

    Utilization is since this collector's last scrape. Where several scrapers ask one collector they shorten
    one another's interval: take the rate of ``asyncio_eventloop_time_seconds_total`` then.
    """

    def __init__(
        self,
        *,
        seconds_buckets: Iterable[float] | None = None,
        count_buckets: Iterable[float] | None = None,
    ) -> None:
        self._reader = Reader(families(seconds_buckets, count_buckets))

    def describe(self) -> Iterator[Metric]:
        """The families without figures: what a registry asks for at registration, before anything is read."""
        return map(_empty, self._reader.families)

    def collect(self) -> Iterator[Metric]:
        """The families with the figures of this moment. What cannot be read is left out, and logged once."""
        for family, series in self._reader.read():
            metric = _empty(family)
            metric.samples = _samples(family, series)
            yield metric


class Exporter:
    """What obsloop's service asks for /metrics: a registry with one ``Collector`` and nothing else."""

    def __init__(self) -> None:
        self._collector = Collector()
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """Content type and body for a client that accepts ``accept``, chosen as prometheus_client does."""
        try:
            encoder, content_type = choose_encoder(accept or "")
        except Exception:  # a version that is no version: what the client would get without asking
            encoder, content_type = choose_encoder("")
        media, version, escaping = _parse(content_type)
        if escaping in _ESCAPINGS and (media, version) in _TEXT_VERSIONS | _OPENMETRICS_VERSIONS:
            openmetrics = (media, version) in _OPENMETRICS_VERSIONS
            return content_type, render(self._collector._reader.read(), openmetrics=openmetrics)
        return content_type, encoder(self._registry)


def _parse(content_type: str) -> tuple[str, str | None, str | None]:
    """Media type, version and escaping scheme."""
    media, *rest = (part.strip() for part in content_type.split(";"))
    parameters = dict(part.split("=", 1) for part in rest if "=" in part)
    return media, parameters.get("version"), parameters.get("escaping")


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
