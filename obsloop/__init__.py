"""obsloop: an asyncio event loop that knows where its time went.

asyncio.run(main(), loop_factory=obsloop.new_event_loop)
"""

from obsloop import _core
from obsloop._catalog import LOOP_NAME_LABEL as LOOP_NAME_LABEL
from obsloop._catalog import SIGNALS as SIGNALS
from obsloop._catalog import Label as Label
from obsloop._catalog import Signal as Signal
from obsloop._ledger import process_snapshot as process_snapshot
from obsloop._ledger import snapshots as snapshots
from obsloop._settings import Settings as Settings
from obsloop._settings import SettingsError as SettingsError
from obsloop._snapshot import ExponentialBuckets as ExponentialBuckets
from obsloop._snapshot import Histogram as Histogram
from obsloop._snapshot import Snapshot as Snapshot
from obsloop._start import InstrumentError as InstrumentError
from obsloop._start import Loop as Loop
from obsloop._start import instrument as instrument
from obsloop._start import new_event_loop as new_event_loop
from obsloop._start import run as run
from obsloop._version import __version__ as __version__

core = _core.kind
