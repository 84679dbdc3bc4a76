"""What instruments are given: see ``obsloop.Instrument``."""

from obsloop._events import (
    CAUSES,
    CallbackError,
    Event,
    LoopBlocked,
    LoopUnblocked,
    Sample,
    SlowCallback,
    SlowIteration,
)

__all__ = [
    "CAUSES",
    "CallbackError",
    "Event",
    "LoopBlocked",
    "LoopUnblocked",
    "Sample",
    "SlowCallback",
    "SlowIteration",
]
