"""What instruments are given: see ``obsloop.Instrument``."""

from obsloop._events import (
    CAUSES,
    EXITS,
    OUTCOMES,
    PHASES,
    Attempt,
    CallbackError,
    ConnectionSetUp,
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
    "PHASES",
    "Attempt",
    "CallbackError",
    "ConnectionSetUp",
    "Event",
    "ExecutorJob",
    "LoopBlocked",
    "LoopUnblocked",
    "Sample",
    "SlowCallback",
    "SlowIteration",
    "SubprocessExit",
]
