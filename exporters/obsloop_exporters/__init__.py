"""Export obsloop's metrics and events to other systems: one module for each system, named after it.

This is a second import package, so that the core never needs an exporter's dependencies. It uses obsloop's public names
only, as an exporter of another package has to, and is found in the same way: by the entry-point group
``obsloop.exporters``. Nothing is imported here: a program pays only for the exporter that it uses.

    prometheus.py   Collector for a registry, Exporter for obsloop's service
    _families.py      from the catalogue to Prometheus's names, types, units, labels and buckets
    _reading.py       from snapshots to the values of one scrape; errors at a scrape are caught here, one by one
    _text.py          from the values to the two text formats, without an object per sample
    otel_metrics.py install, uninstall, wrap: OpenTelemetry metrics through the program's MeterProvider
    _otel_reading.py  from snapshots to points: attributes, values now and before, times
    _otel_sdk.py      add obsloop's metrics to the SDK's exporters and readers; has the SDK's private names for that
    _otel_points.py   from points to the SDK's data, as a reader prefers it
    _otel_views.py    apply the provider's Views
    _otel_instruments.py  the API alone: observable instruments
    otel_spans.py   install, uninstall: OpenTelemetry spans for rare events through the program's TracerProvider
    _otel_span_shapes.py  from an event to its span
    _otel_span_parents.py  the span's parent or link
    _otel_span_budget.py  how many spans may be made
    _otel_span_others.py  which spans OpenTelemetry's asyncio instrumentation makes already
    otel_instrumentor.py  for opentelemetry-instrument; otel_environment_variables.py: the variables
    _common.py      for all exporters
"""
