"""Show a file and a line to a person: short, but still enough to open the file."""

from __future__ import annotations

import os
from contextlib import suppress
from os.path import sep

from obsloop.introspect.attributes import printable
from obsloop.introspect.own_code import INSTALLED


def place(filename: str, lineno: int | None) -> str:
    """Return ``shop/views.py:31``: relative to the working directory, or to where packages are installed.

    Other files keep their whole path. Return an empty string if there is no file.
    """
    if not filename:
        return ""
    return f"{short(filename)}:{lineno}" if lineno else short(filename)


def short(filename: str) -> str:
    """Return the path as ``place`` shows it, without a line."""
    for part in INSTALLED:
        _, found, inside = filename.rpartition(part)
        if found:
            return printable(inside)
    with suppress(OSError):  # the directory may be gone
        here = os.path.join(os.getcwd(), "")
        if here != sep and filename.startswith(here):
            return printable(filename[len(here) :])
    return printable(filename)
