"""What instruments are given: see ``obsloop.Instrument``."""

from obsloop._events import (
    CAUSES,
    EXITS,
    OUTCOMES,
    CallbackError,
    Event,
    ExecutorJob,
    LoopBlocked,
    LoopUnblocked,
    Sample,
    SlowCallback,
    SlowIteration,
    SubprocessExit,
)

__all__ = [
    "CAUSES",
    "EXITS",
    "OUTCOMES",
    "CallbackError",
    "Event",
    "ExecutorJob",
    "LoopBlocked",
    "LoopUnblocked",
    "Sample",
    "SlowCallback",
    "SlowIteration",
    "SubprocessExit",
]
