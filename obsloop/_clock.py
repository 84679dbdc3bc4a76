"""The clock that everything is timed with: monotonic nanoseconds, one for the whole process.

It is a module's variable so that ``testing.StepClock`` can put another in its place; ``_hot`` holds a copy, because
there a global of its own module is the cheapest look-up.
"""

import time

monotonic_ns = time.monotonic_ns
