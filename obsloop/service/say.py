"""Lines on stderr for the person who started the program. Nothing here may raise: stderr can be closed, gone,
or somebody's own object.
"""

import logging
import sys
from contextlib import suppress

from obsloop.base.stderr import would_wait

_said: set[str] = set()


def say(line: str) -> None:
    """Write `obsloop: <line>` to stderr, in one write so that lines of several processes do not mix."""
    with suppress(Exception):  # sys.stderr is None in a daemon, and may be any object of the program's
        if sys.stderr is not None and not would_wait(sys.stderr):
            sys.stderr.write(f"obsloop: {line}\n")
            sys.stderr.flush()


def say_once(key: str, line: str) -> None:
    """Say it the first time that this process comes by with `key`."""
    if key not in _said:
        _said.add(key)
        say(line)


def say_error(key: str, what: str) -> None:
    """Say once in one line that `what` happened, with the error that is being handled; log its traceback at DEBUG."""
    if key not in _said:
        error = sys.exc_info()[1]
        reason = f"{type(error).__name__}: {error}".replace("\n", " ").replace("\r", " ")
        say_once(key, f"{what}: {reason}. The traceback is logged at level DEBUG by the logger obsloop.")
        with suppress(Exception):  # a logging handler of the program's may raise
            logging.getLogger("obsloop").debug("%s", what, exc_info=True)
