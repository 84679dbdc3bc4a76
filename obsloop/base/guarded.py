"""Keep errors of obsloop, of hooks and of the program's logging handlers away from the program.

``BaseException`` is caught, and not only ``Exception``: a hook that asks a cancelled future for its result raises
``CancelledError``, and many test libraries and time-outs have such exceptions of their own. Only ``SystemExit`` and
``KeyboardInterrupt`` are raised again, and only in the main thread or in one that runs a loop. There they end the
program. In one of obsloop's threads they would only end that thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec

from obsloop.base.log import first_time, logger

_P = ParamSpec("_P")

_main = threading.main_thread


def goes_on(error: BaseException) -> bool:
    """Return whether to raise ``error`` again: it ends the program, and this thread can do that."""
    if not isinstance(error, (SystemExit, KeyboardInterrupt)):
        return False
    return asyncio._get_running_loop() is not None or threading.get_ident() == _main().ident


class _Harmless:
    """A context manager that suppresses every exception for which ``goes_on`` is False."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, cls: object, error: BaseException | None, traceback: object) -> bool:
        return error is not None and not goes_on(error)


harmless = _Harmless()
"""``with harmless:`` is ``with suppress(...)`` for code of the program, such as its logging handlers. It has no state,
so all threads share one."""


def guarded(function: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> None:
    """Call ``function``. If it raises, log that, once per function."""
    try:
        function(*args, **kwargs)
    except BaseException as error:
        failed(function, error)


def failed(function: Callable[..., object], error: BaseException) -> None:
    """Log an error of ``function``, once per function. Raise it again if it ends the program.

    Frequent callers catch the error themselves, which saves a call of ``guarded``.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    if not goes_on(error) and first_time(name):
        with harmless:  # one of the program's logging handlers may raise, too
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            logger.error("obsloop's own error in %s: %s. The program goes on.", name, reason)
            logger.debug("The traceback of that error:", exc_info=True)
    if goes_on(error):
        raise error
