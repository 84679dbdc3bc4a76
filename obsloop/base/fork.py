"""What a forked child must forget. Each module that keeps something of its process registers one function here."""

from __future__ import annotations

import os
from collections.abc import Callable


def reset_in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Call ``reset`` in each forked child, before the child's own code runs. To be used as a decorator.

    The functions are called in the order in which they were registered. Where one fails, Python prints its traceback
    and calls the next. In the child only the thread that forked is left: another may have held a lock.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
    return reset
