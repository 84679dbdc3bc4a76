"""The door for ``opentelemetry-instrument``: observed loops, their metrics and their spans, without a flag or a line.

Found by the entry-point group ``opentelemetry_instrumentor``, as OpenTelemetry's own instrumentations are;
``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=obsloop`` leaves it out. It does what they do without deriving from their base
class, which is in a package that the API does not need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import obsloop
from obsloop import Settings, SettingsError
from obsloop_exporters import otel_metrics, otel_spans

_log = logging.getLogger("obsloop.exporters")
_undo: list[Callable[[], object]] = []


class ObsloopInstrumentor:
    """What ``opentelemetry.instrumentation.instrumentor.BaseInstrumentor`` promises. All of them are one."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: asyncio is there."""
        return ()

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether it is on."""
        return bool(_undo)

    def instrument(self, *, tracer_provider: Any = None, meter_provider: Any = None, **_: Any) -> None:
        """Observe every plain loop that is made from now on, as under ``obsloop run``; export metrics and spans.

        Without providers, through the global ones. A bad ``OBSLOOP_*`` variable is told in one line, and nothing is
        done: the program and its other instrumentations go on.
        """
        if _undo:
            _log.warning("obsloop is on already")
            return
        try:
            Settings.from_env()
            otel_spans.install(tracer_provider)
        except SettingsError as error:
            _log.error("not observed: %s", error)
            return
        otel_metrics.install(meter_provider)
        _undo.extend([
            obsloop.observe_new_loops(),
            lambda: otel_spans.uninstall(tracer_provider),
            lambda: otel_metrics.uninstall(meter_provider),
        ])  # fmt: skip

    def uninstrument(self, **_: Any) -> None:
        """Undo it. Loops that exist stay observed; nothing of them is exported any more."""
        if not _undo:
            _log.warning("obsloop is off already")
        while _undo:
            _undo.pop(0)()
