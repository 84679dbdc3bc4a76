"""What instruments are given: see ``obsloop.Instrument``."""

from obsloop._events import (
    CAUSES,
    OUTCOMES,
    CallbackError,
    Event,
    ExecutorJob,
    LoopBlocked,
    LoopUnblocked,
    SlowCallback,
    SlowIteration,
)

__all__ = [
    "CAUSES",
    "OUTCOMES",
    "CallbackError",
    "Event",
    "ExecutorJob",
    "LoopBlocked",
    "LoopUnblocked",
    "SlowCallback",
    "SlowIteration",
]
