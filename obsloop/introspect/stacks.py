"""A thread's stack as text, from the loop's callback on, and the program's innermost place in it.

Another thread may call this while the callback runs. Only names and places are kept: no frame, no local.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import base_events, events
from contextlib import suppress
from os.path import dirname, join, sep
from traceback import FrameSummary
from typing import Any, NamedTuple

from obsloop.base import asyncio_private
from obsloop.introspect import attributes
from obsloop.introspect.attributes import printable
from obsloop.introspect.frames import Frames
from obsloop.introspect.functions import Site

MAX_FRAMES = 100
"""How many innermost frames of a stack are kept."""

_OURS = dirname(dirname(asyncio_private.__file__)) + sep  # the folder of the package
_EVENTS, _BASE_EVENTS = events.__file__, base_events.__file__

# The frames that call callbacks, and those around them. These and all outer frames are the same for every callback.
_LOOPS_OWN = frozenset({
    (join(_OURS, "hotpath", "pure", "iteration.py"), "run_once"),
    (join(_OURS, "loop", "loop.py"), "run_forever"),
    (join(_OURS, "hotpath", "cold_path.py"), "run_in_debug"),
    (join(_OURS, "loop", "fallback.py"), "run_forever"),
    (join(_OURS, "loop", "fallback.py"), "__call__"),
    (_BASE_EVENTS, "run_forever"),
    (_BASE_EVENTS, "_run_once"),
    (_EVENTS, "_run"),
})  # fmt: skip

# Code that is not the program's: the standard library, obsloop, and installed packages.
_LIBRARIES = (dirname(os.__file__) + sep, _OURS, "<frozen ")
_INSTALLED = (f"{sep}site-packages{sep}", f"{sep}dist-packages{sep}")


class Stack(NamedTuple):
    """A stack without the loop's own frames."""

    frames: tuple[FrameSummary, ...]
    """Outermost first. If some were left out, the first one says how many."""
    outermost: Site | None
    """The function that the loop called, as the stack shows it; None if the loop itself is at work."""
    ours: bool
    """Whether the loop's thread runs obsloop's code: the block is over, and the thread will report its end."""


def take(frames: Frames) -> Stack:
    """Return the stack of these frames, from the loop's callback on. Sources are not read."""
    kept: list[FrameSummary] = []
    outermost = -1
    codes = frames.codes
    ours = bool(codes) and codes[0].co_filename.startswith(_OURS)
    walked, cut = 0, frames.cut
    for code, line in zip(codes, frames.lines, strict=True):
        if (code.co_filename, code.co_name) in _LOOPS_OWN:
            cut = False
            break
        if walked < MAX_FRAMES:
            kept.append(FrameSummary(code.co_filename, line or 0, code.co_name, lookup_line=False))
        if not code.co_filename.startswith(_OURS):  # obsloop's frames call instruments
            outermost = walked
        walked += 1
    if walked > len(kept):
        more = "or more " if cut else ""
        kept.append(FrameSummary("", 0, f"({walked - len(kept)} {more}frames left out)", lookup_line=False))
    site = None
    if outermost >= 0 and not cut:
        code, module = codes[outermost], frames.modules[outermost]
        prefix = f"{module}." if isinstance(module, str) else ""
        site = Site(f"{prefix}{code.co_qualname}", code.co_filename, code.co_firstlineno)
    return Stack(tuple(reversed(kept)), site, ours and walked > 0 and outermost < 0)


def where(frames: tuple[FrameSummary, ...]) -> str:
    """Return ``at app.py:12 in fetch``: the program's innermost frame, else the innermost one. Empty if none."""
    own = (f for f in reversed(frames) if f.filename and not _is_library(f.filename))
    frame = next(own, frames[-1] if frames else None)
    return printable(f"at {frame.filename}:{frame.lineno} in {frame.name}") if frame is not None else ""


def _is_library(filename: str) -> bool:
    return filename.startswith(_LIBRARIES) or any(part in filename for part in _INSTALLED)


def lines(frames: tuple[FrameSummary, ...]) -> str:
    """Return one line per frame, as in a traceback, without the sources."""
    return "".join(
        f'\n  File "{printable(f.filename)}", line {f.lineno}, in {printable(f.name)}'
        if f.filename
        else f"\n  {printable(f.name)}"
        for f in frames
    )


def inner_task(loop: Any, handle: Any) -> Any:
    """Return the loop's current task, unless it is the handle's own: an eager task that runs its first step."""
    task: Any = None
    with suppress(Exception):
        task = asyncio.current_task(loop)
    if task is not None and handle is not None:
        own = attributes.get(attributes.get(handle, "_callback"), "__self__")
        if own is task:
            return None
    return task
