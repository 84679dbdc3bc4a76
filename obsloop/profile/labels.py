"""Names of the program as labels of a profile."""

from __future__ import annotations

import re

from obsloop.profile.data import Labels

_DEFAULT = re.compile(r"Task-\d+\Z")
_DIGITS = re.compile(r"\d+")


def task_label(name: str | None) -> str:
    """Return a task's name for a label: without asyncio's own names, and with ``N`` for each number in it.

    Else each task would have a stack of its own, and there would soon be too many.
    """
    return "" if not name or _DEFAULT.match(name) else _DIGITS.sub("N", name)


def labels(**values: str | None) -> Labels:
    """Return the labels that have a value, in alphabetical order."""
    return tuple(sorted((name, value) for name, value in values.items() if value))
