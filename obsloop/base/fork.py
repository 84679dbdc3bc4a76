"""Reset obsloop's state in a forked child. Each module with state of its process registers one function here."""

from __future__ import annotations

import os
from collections.abc import Callable


def reset_in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Call ``reset`` in each forked child, before the child's own code runs. Use it as a decorator.

    The functions are called in the order in which they were registered. If one fails, Python prints its traceback and
    calls the next. The child has only the thread that forked; a thread that it does not have may have held a lock.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
    return reset
