"""List obsloop's variables for the entry-point group ``opentelemetry_environment_variables``.

Each name is an attribute with itself as its value, for tools that list what can be configured.
(``opentelemetry-instrument`` itself makes options only of those that begin with ``OTEL_``.)
"""

from obsloop import Settings, SpanSettings

globals().update({name: name for name in (*Settings.variables(), *SpanSettings.variables())})
