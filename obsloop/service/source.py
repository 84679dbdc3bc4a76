"""Stacks for people: the program's own frames with their lines of source, the libraries' frames folded."""

import os
import stat
import tokenize
from collections.abc import Sequence
from traceback import FrameSummary
from typing import Any

from obsloop.base.fork import reset_in_child
from obsloop.introspect.places import place as short_place
from obsloop.metrics import self_metrics
from obsloop.service.pages import clean

MAX_FRAMES = 30
"""Of one stack, after folding; the innermost ones."""
MAX_LINE = 120
MAX_KEPT = 1_000
_MAX_FILE = 2_000_000

_lines: dict[tuple[str, int, int], str] = {}
"""File, its time of change, line -> its source."""


def frames(stack: Sequence[FrameSummary]) -> list[dict[str, Any]]:
    """Return a stack for JSON, outermost frame first. Libraries' frames in a row are one entry, with their count.

    The innermost frame always has its own entry.
    """
    found: list[dict[str, Any]] = []
    for i, frame in enumerate(stack):
        own = bool(getattr(frame, "own", False))
        if not own and i < len(stack) - 1:
            if found and found[-1]["library_frames"]:
                found[-1]["library_frames"] += 1
            else:
                found.append({"at": None, "function": None, "own": False, "source": None, "library_frames": 1})
            continue
        found.append(
            {
                "at": where(frame.filename, frame.lineno or 0),
                "function": clean(getattr(frame, "function", "") or frame.name),
                "own": own,
                "source": line(frame.filename, frame.lineno or 0) or None if own else None,
                "library_frames": 0,
            }
        )
    return found[-MAX_FRAMES:]


def lines(stack: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of text for such a stack."""
    shown: list[str] = []
    for frame in stack:
        if frame["library_frames"]:
            n = frame["library_frames"]
            shown.append(f"({n} library frame{'s' if n > 1 else ''})")
            continue
        shown.append(f"{frame['at']} in {frame['function']}")
        if frame["source"]:
            shown.append(f"    {frame['source']}")
    return shown


def where(filename: str, lineno: int) -> str:
    """Return `shop/views.py:31`, short enough to read; empty if there is no file."""
    return clean(short_place(filename, lineno)) if len(filename) < 4096 else ""


def line(filename: str, lineno: int) -> str:
    """Return a line of a source file; empty if it is not known.

    A file that has changed since the process began may have another line there, so it is not read. `linecache` would
    keep whole files in the program's memory.
    """
    try:
        status = os.stat(filename)
        if not filename.endswith(".py") or not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
            return ""
        if status.st_mtime > self_metrics.began:
            return ""
        key = filename, status.st_mtime_ns, lineno
        if key not in _lines:
            if len(_lines) >= MAX_KEPT:
                _lines.clear()
            _lines[key] = _read(filename, lineno)
        return _lines[key]
    except (OSError, ValueError, SyntaxError):  # gone, not text, or of an unknown encoding
        return ""


def _read(filename: str, lineno: int) -> str:
    with tokenize.open(filename) as file:
        for number, text in enumerate(file, 1):
            if number == lineno:
                return clean(text.strip(), MAX_LINE)
    return ""


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _lines  # noqa: PLW0603
    _lines = {}
