"""The observer never raises into the program: what goes wrong on our side is logged, once for each place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec

_P = ParamSpec("_P")

_log = logging.getLogger("obsloop")
_told: set[str] = set()


def guarded(function: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> None:
    """Call ``function``; what it raises is logged, the first time."""
    try:
        function(*args, **kwargs)
    except Exception:
        name = f"{function.__module__}.{function.__qualname__}"
        if name not in _told:
            _told.add(name)
            with suppress(Exception):  # a logging handler of the program's that raises: there is nobody left to tell
                _log.exception("obsloop's own error in %s; the program goes on", name)
