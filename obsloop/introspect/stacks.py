"""A thread's stack as text, from the loop's callback on, and the program's innermost place in it.

Another thread may call this while the callback runs. Only names and places are kept: no frame, no local.
"""

from __future__ import annotations

import asyncio
from asyncio import base_events, events, runners
from contextlib import suppress
from os.path import join
from traceback import FrameSummary
from typing import Any, NamedTuple

from obsloop.introspect import attributes, own_code
from obsloop.introspect.attributes import printable
from obsloop.introspect.frames import Frames
from obsloop.introspect.functions import Site
from obsloop.introspect.own_code import OBSLOOP, Frame, OwnCode, is_obsloops

MAX_FRAMES = 100
"""How many innermost frames of a stack are kept."""

_EVENTS, _BASE_EVENTS = events.__file__, base_events.__file__

# The frames that call callbacks, and those around them. These and all outer frames are the same for every callback.
_LOOPS_OWN = frozenset({
    (join(OBSLOOP, "hotpath", "pure", "iteration.py"), "run_once"),
    (join(OBSLOOP, "loop", "loop.py"), "run_forever"),
    (join(OBSLOOP, "hotpath", "cold_path.py"), "run_in_debug"),
    (join(OBSLOOP, "loop", "fallback.py"), "run_forever"),
    (join(OBSLOOP, "loop", "fallback.py"), "__call__"),
    (join(OBSLOOP, "loop", "kept_uvloop.py"), "run_forever"),
    (_BASE_EVENTS, "run_forever"),
    (_BASE_EVENTS, "_run_once"),
    (_EVENTS, "_run"),
    (runners.__file__, "run"),  # uvloop's methods have no frames
})  # fmt: skip


class Stack(NamedTuple):
    """A stack without the loop's own frames."""

    frames: tuple[FrameSummary, ...]
    """Outermost first. If some were left out, the first one says how many."""
    outermost: Site | None
    """The function that the loop called, as the stack shows it; None if the loop itself is at work."""
    ours: bool
    """Whether the loop's thread runs obsloop's code: the block is over, and the thread will report its end."""
    innermost_first: list[Frame]
    """All frames that were read, without the cut to ``MAX_FRAMES``."""


def take(frames: Frames, rule: OwnCode = own_code.DEFAULT) -> Stack:
    """Return the stack of these frames, from the loop's callback on. Sources are not read."""
    outermost = -1
    codes = frames.codes
    ours = bool(codes) and is_obsloops(codes[0].co_filename)
    walked, cut = 0, frames.cut
    for code in codes:
        if (code.co_filename, code.co_name) in _LOOPS_OWN:
            cut = False
            break
        if not is_obsloops(code.co_filename):  # obsloop's frames call instruments
            outermost = walked
        walked += 1
    entries = zip(codes[:walked], frames.lines[:walked], frames.modules[:walked], strict=True)
    inner = [rule.frame(*entry) for entry in entries]
    kept: list[FrameSummary] = [*inner[:MAX_FRAMES]]
    if walked > len(kept):
        more = "or more " if cut else ""
        kept.append(FrameSummary("", 0, f"({walked - len(kept)} {more}frames left out)", lookup_line=False))
    site = None
    if outermost >= 0 and not cut:
        code, module = codes[outermost], frames.modules[outermost]
        prefix = f"{module}." if isinstance(module, str) else ""
        site = Site(f"{prefix}{code.co_qualname}", code.co_filename, code.co_firstlineno)
    return Stack(tuple(reversed(kept)), site, ours and walked > 0 and outermost < 0, inner)


def where(frames: tuple[FrameSummary, ...]) -> str:
    """Return ``at app.py:12 in fetch``: the program's innermost frame, else the innermost one. Empty if none."""
    own = (f for f in reversed(frames) if isinstance(f, Frame) and f.own)
    frame = next(own, frames[-1] if frames else None)
    return printable(f"at {frame.filename}:{frame.lineno} in {frame.name}") if frame is not None else ""


def lines(frames: tuple[FrameSummary, ...]) -> str:
    """Return one line per frame, as in a traceback, without the sources."""
    return "".join(
        f'\n  File "{printable(f.filename)}", line {f.lineno}, in {printable(f.name)}'
        if f.filename
        else f"\n  {printable(f.name)}"
        for f in frames
    )


def folded(frames: tuple[FrameSummary, ...]) -> tuple[FrameSummary, ...]:
    """Return the own frames; each run of library frames between them becomes one line that counts them."""
    kept: list[FrameSummary] = []
    hidden = 0
    for frame in frames:
        if isinstance(frame, Frame) and not frame.own:
            hidden += 1
            continue
        if hidden:
            kept.append(_hidden(hidden))
            hidden = 0
        kept.append(frame)
    return (*kept, _hidden(hidden)) if hidden else tuple(kept)


def _hidden(n: int) -> FrameSummary:
    return FrameSummary("", 0, f"({n} library {'frame' if n == 1 else 'frames'})", lookup_line=False)


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
