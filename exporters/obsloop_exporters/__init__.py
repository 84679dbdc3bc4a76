"""Exporters: obsloop's figures in other systems' forms, one module for each system, named after it.

A second import package, so that the core never needs what an exporter needs. Everything here uses obsloop's
public names only, as a stranger's exporter has to, and is found the same way: by the entry-point group
``obsloop.exporters``. Nothing is imported here: a program pays for the exporter that it uses.

    prometheus.py   Collector for a registry, Exporter for obsloop's own service
    _families.py      from the catalogue to Prometheus's names, types, units, labels and buckets
    _reading.py       from snapshots to the figures of one scrape; what can fail at a scrape fails here, alone
    _text.py          from the figures to the two text formats, without an object per sample
    otel_metrics.py install, uninstall, wrap: OpenTelemetry metrics through the program's MeterProvider
    _otel_reading.py  from snapshots to points: attributes, values now and before, times
    _otel_sdk.py      the SDK's exporters and readers, given ours too; every private name of the SDK that it takes
    _otel_points.py   from points to the SDK's data, as a reader prefers it
    _otel_views.py    what Views want
    _otel_instruments.py  the API alone: instruments that are observed
    otel_spans.py   install, uninstall: OpenTelemetry spans for what is rare through the program's TracerProvider
    _otel_span_shapes.py  from an event to the span that tells of it
    _otel_span_parents.py  whose child it is, or what it has a link to
    _otel_span_budget.py  how many may be made
    _otel_span_others.py  what OpenTelemetry's asyncio instrumentation has a span for already
    otel_instrumentor.py  the door for opentelemetry-instrument; otel_environment_variables.py: what can be set
    _common.py      what all of them share
"""
