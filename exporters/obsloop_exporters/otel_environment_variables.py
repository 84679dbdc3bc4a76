"""The names of obsloop's variables, each an attribute with itself for its value, for the entry-point group
``opentelemetry_environment_variables``: who lists what can be configured finds ours there.

(``opentelemetry-instrument`` itself makes options of those only that begin with ``OTEL_``.)
"""

from obsloop import Settings, SpanSettings

globals().update({name: name for name in (*Settings.variables(), *SpanSettings.variables())})
