"""Let ``opentelemetry-instrument`` observe loops and export their metrics and spans, without a flag or a line of code.

It finds this by the entry-point group ``opentelemetry_instrumentor``, like OpenTelemetry's own instrumentations;
``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=obsloop`` leaves it out. The class here does not derive from their base class,
which is in a package that the API does not need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import obsloop
from obsloop_exporters import otel_metrics, otel_spans

_log = logging.getLogger("obsloop.exporters")
_undo: list[Callable[[], object]] = []


class ObsloopInstrumentor:
    """The methods of ``opentelemetry.instrumentation.instrumentor.BaseInstrumentor``. All instances share one state."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no dependencies: asyncio is always installed."""
        return ()

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether obsloop is switched on here."""
        return bool(_undo)

    def instrument(self, *, tracer_provider: Any = None, meter_provider: Any = None, **_: Any) -> None:
        """Observe every plain loop that is made from now on, as under ``obsloop run``; export metrics and spans.

        uvloop's loops stay as they are, unless ``OBSLOOP_UVLOOP`` is ``keep`` (then they are observed) or ``replace``.
        Without providers, use the global ones. A bad ``OBSLOOP_*`` variable is logged, and its default is used.
        """
        if _undo:
            _log.warning("obsloop is on already")
            return
        otel_spans.install(tracer_provider)
        otel_metrics.install(meter_provider)
        _undo.extend([
            obsloop.observe_new_loops(uvloop=""),
            lambda: otel_spans.uninstall(tracer_provider),
            lambda: otel_metrics.uninstall(meter_provider),
        ])  # fmt: skip

    def uninstrument(self, **_: Any) -> None:
        """Undo ``instrument``. Existing loops stay observed, but nothing of them is exported any more."""
        if not _undo:
            _log.warning("obsloop is off already")
        while _undo:
            _undo.pop(0)()
