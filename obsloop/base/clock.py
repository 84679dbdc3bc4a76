"""The clock that everything is timed with: monotonic nanoseconds, one for the whole process.

It is a module's variable so that ``testing.StepClock`` can put another in its place; ``hotpath.pure`` holds a copy,
because there a global of its own module is the cheapest look-up.
"""

import time
from collections.abc import Callable
from importlib.util import module_from_spec


def _own() -> Callable[[], int]:
    """``time.monotonic_ns`` as a function object of our own.

    Libraries that freeze the time, such as freezegun, replace the well-known object in every module that refers to it.
    What obsloop measures would be of two clocks then.
    """
    spec = time.__spec__
    if spec is None or spec.loader is None:
        return time.monotonic_ns
    module = module_from_spec(spec)  # a second instance of the built-in module, known to nothing else
    spec.loader.exec_module(module)
    own: Callable[[], int] = module.monotonic_ns
    return own


REAL = monotonic_ns = _own()
"""``REAL`` stays what it is; a test's clock takes the place of ``monotonic_ns``."""


def seconds() -> float:
    """Return ``REAL`` in seconds. obsloop's own threads wait by it: a frozen time would have them wait for decades."""
    return REAL() / 1e9


def epoch(at_ns: int) -> float:
    """Return a moment of the monotonic clock in seconds since the epoch."""
    return time.time() - (monotonic_ns() - at_ns) / 1e9
