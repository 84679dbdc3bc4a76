"""Lines on stderr for the person who started the program. Nothing here may raise: stderr can be closed, gone,
or somebody's own object.
"""

import sys
from contextlib import suppress

_said: set[str] = set()


def say(line: str) -> None:
    """Write `obsloop: <line>` to stderr, in one write so that lines of several processes do not mix."""
    with suppress(Exception):  # sys.stderr is None in a daemon, and may be any object of the program's
        if sys.stderr is not None:
            sys.stderr.write(f"obsloop: {line}\n")
            sys.stderr.flush()


def say_once(key: str, line: str) -> None:
    """Say it the first time that this process comes by with `key`."""
    if key not in _said:
        _said.add(key)
        say(line)
