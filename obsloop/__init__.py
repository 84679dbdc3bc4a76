"""obsloop: an asyncio event loop that knows where its time went.

asyncio.run(main(), loop_factory=obsloop.new_event_loop)
"""

# The map. Start at loop/loop.py; ARCHITECTURE.md says why.
#
#   _loop          the loop: asyncio's own, with its hot path taken from the core
#   _start         new_event_loop, run, instrument
#   _hot           the hot path in pure Python; hotpath/compiled/: its compiled twin; _core chooses between the two,
#                  and _cold is what is rare in both
#   _cells         the counters of one loop; _ledger: who counts where; _snapshot: what readers get
#   _catalog       THE list of signals; _partition: the bounds that histograms count over
#   _events        the rare happenings; _instruments: who listens; _sites: from a callback to its name
#   watch/         what is concluded: slow callbacks and iterations, blocked loops and why
#   _running       which loops run now; _rare: the figures of what happens rarely
#   _observation   what a loop carries of ours; _settings, _clock, _private, _guard and _fallback
#   probes/        what is wrapped; service/ the HTTP threads; cli/ the command; integrations/ front doors; testing

from obsloop import events as events
from obsloop._version import __version__ as __version__
from obsloop.base.settings import Settings as Settings, SettingsError as SettingsError, SpanSettings as SpanSettings
from obsloop.hotpath import backend
from obsloop.instruments import (
    Instrument as Instrument,
    add_instrument as add_instrument,
    remove_instrument as remove_instrument,
)
from obsloop.integrations.autoload import observe_new_loops as observe_new_loops
from obsloop.loop.start import (
    InstrumentError as InstrumentError,
    Loop as Loop,
    instrument as instrument,
    new_event_loop as new_event_loop,
    run as run,
)
from obsloop.metrics.catalog import (
    LOOP_NAME_LABEL as LOOP_NAME_LABEL,
    SIGNALS as SIGNALS,
    Label as Label,
    Signal as Signal,
)
from obsloop.metrics.self_metrics import count_dropped_spans as count_dropped_spans, count_export as count_export
from obsloop.metrics.snapshot import (
    CoroutineTime as CoroutineTime,
    Exemplar as Exemplar,
    ExponentialBuckets as ExponentialBuckets,
    Histogram as Histogram,
    Snapshot as Snapshot,
)
from obsloop.probes.collect import process_snapshot as process_snapshot, snapshots as snapshots
from obsloop.probes.tasks import TaskTimes as TaskTimes, measure_tasks as measure_tasks, task_times as task_times

core = backend.kind
