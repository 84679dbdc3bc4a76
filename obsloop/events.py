"""What instruments are given: see ``obsloop.Instrument``."""

from obsloop._events import (
    CAUSES,
    CLOSINGS,
    DIRECTIONS,
    EXITS,
    OUTCOMES,
    ROLES,
    CallbackError,
    Event,
    ExecutorJob,
    LoopBlocked,
    LoopUnblocked,
    Sample,
    SlowCallback,
    SlowIteration,
    SubprocessExit,
    TransportClosed,
)

__all__ = [
    "CAUSES",
    "CLOSINGS",
    "DIRECTIONS",
    "EXITS",
    "OUTCOMES",
    "ROLES",
    "CallbackError",
    "Event",
    "ExecutorJob",
    "LoopBlocked",
    "LoopUnblocked",
    "Sample",
    "SlowCallback",
    "SlowIteration",
    "SubprocessExit",
    "TransportClosed",
]
