"""The clock for all times: monotonic nanoseconds, one for the whole process.

``monotonic_ns`` is a variable of this module so that ``testing.StepClock`` can replace it. ``hotpath.pure`` has a copy,
since a global of its own module is the cheapest look-up there.
"""

import time
from collections.abc import Callable
from importlib.util import module_from_spec


def _own() -> Callable[[], int]:
    """Return ``time.monotonic_ns`` as a separate function object.

    Libraries that freeze the time, such as freezegun, replace the well-known object in every module that refers to it.
    obsloop's times would then come from two clocks.
    """
    spec = time.__spec__
    if spec is None or spec.loader is None:
        return time.monotonic_ns
    module = module_from_spec(spec)  # a second instance of the built-in module; no other code has it
    spec.loader.exec_module(module)
    own: Callable[[], int] = module.monotonic_ns
    return own


REAL = monotonic_ns = _own()
"""A test's clock replaces ``monotonic_ns``; ``REAL`` never changes."""


def seconds() -> float:
    """Return ``REAL`` in seconds. obsloop's threads wait by it: with a frozen time they would wait for decades."""
    return REAL() / 1e9


def epoch(at_ns: int) -> float:
    """Return a moment of the monotonic clock in seconds since the epoch."""
    return time.time() - (monotonic_ns() - at_ns) / 1e9
