"""Tests that assert a private detail of the stock class and cannot hold for any subclass. Kept as short as can be.

A test that merely fails does not belong here: it shows where the loop is no drop-in. `run.py` fails when a listed test
passes after all, or does not exist on an interpreter that its versions include.
"""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """One test that may fail, on the Python versions from `since` to `until`, both included."""

    test: str
    reason: str
    since: tuple[int, int] = (3, 11)
    until: tuple[int, int] = (3, 15)


LISTED: tuple[Listed, ...] = ()


def listed_here() -> dict[str, Listed]:
    """The entries for the interpreter that runs this, by test id."""
    return {entry.test: entry for entry in LISTED if entry.since <= sys.version_info[:2] <= entry.until}
