"""Read frames of other threads in one step: no other thread runs before the last frame is read.

A frame object of another thread is dangerous.

* Before Python 3.12, making one can start a garbage collection. A finalizer gives the GIL away, the other thread
  returns from the frame, and the new object then points to memory that another frame uses. ``sys._current_frames()``
  also holds a lock of the interpreter meanwhile: a thread that starts waits for that lock with the GIL, for ever.
* If the other thread returns while the object exists, the object takes over the locals. Their finalizers then run in
  the thread that drops the object.

So the functions here keep code objects, line numbers and module names, and drop each frame within the same step. A step
is a chain of C functions that C iterators call. Python gives the GIL away only between bytecodes, and a step has none.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from functools import partial
from itertools import compress, islice, repeat, takewhile
from operator import attrgetter, call, is_, is_not, methodcaller
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

LIMIT = 200
"""How many innermost frames of a thread are read."""

_MAX_CALLERS = 100
_COLLECTS_WHEN_ALLOCATING = sys.version_info < (3, 12)
_RESTORE: dict[bool, Callable[[], object]] = {True: gc.enable, False: gc.isenabled}  # isenabled changes nothing

_deque: Any = deque
_type: Any = type
_is_there: Any = partial(is_not, None)
_is_frame: Any = partial(is_, FrameType)
_code: Any = attrgetter("f_code")
_line: Any = attrgetter("f_lineno")
_back: Any = attrgetter("f_back")
_globals: Any = attrgetter("f_globals")
_name_of: Any = vars(dict)["get"]


class Frames(NamedTuple):
    """What was read of a thread's frames. The lists have the innermost frame first."""

    codes: list[CodeType]
    lines: list[int | None]
    modules: list[Any]
    """``__name__`` of each frame's globals: a string, unless the program has put another object there."""
    wanted: list[Any]
    """The frames of the code object that the caller wanted."""
    cut: bool
    """Whether the thread may have more frames than were read."""


def in_one_step(*calls: Callable[[], object]) -> None:
    """Call these C functions one after the other, with no other thread and no garbage collection in between.

    They must not run Python code: no Python function, and no method of a class defined in Python.
    """
    restore: list[Callable[[], object]] = []
    if _COLLECTS_WHEN_ALLOCATING:
        # The step itself reads whether collections are on: the program may switch them off at any other moment.
        remember: Any = partial(restore.extend, map(_RESTORE.__getitem__, map(call, (gc.isenabled,))))
        calls = (remember, gc.disable, *calls, partial(_deque, map(call, restore), 0), restore.clear)
    try:
        _deque(map(call, calls), 0)
    finally:
        for switch_on in restore:  # not empty if one of the calls has failed
            switch_on()


def callers(frame: Any, ends: Container[tuple[str, str]] = ()) -> Iterator[tuple[Any, CodeType, str]]:
    """Yield (frame, code, module's name) of ``frame`` and its callers, 100 at most. Only for the frame's own thread.

    Ends before the first function of ``ends``: (file, name). The module's name is empty if the program has put another
    object there.
    """
    for _ in range(_MAX_CALLERS):
        if frame is None or (frame.f_code.co_filename, frame.f_code.co_name) in ends:
            return
        module = frame.f_globals.get("__name__")
        yield frame, frame.f_code, module if type(module) is str else ""
        frame = frame.f_back


def of_thread(ident: int, wanted: CodeType | None = None) -> Frames:
    """Read the frames of the thread with this ``ident``; none if the thread has ended."""
    return _read(map(methodcaller("get", ident), map(call, (sys._current_frames,))), wanted)


def of_frame(frame: FrameType | None) -> Frames:
    """Read ``frame`` and its callers. Only for the frame's own thread."""
    return _read(iter((frame,)), None)


def is_alive(ident: int) -> bool:
    """Return whether the thread with this ``ident`` has a frame."""
    found: list[bool] = []
    tops = map(methodcaller("get", ident), map(call, (sys._current_frames,)))
    in_one_step(partial(found.extend, map(_is_there, tops)))
    return found == [True]


def place_in(suspended: Any, frame_of: Any) -> tuple[CodeType, int] | None:
    """Return code and line of a coroutine's or generator's frame. ``frame_of`` is ``cr_frame`` as the class has it.

    None if it has ended, or if the frame is not Python's.
    """
    frames: list[Any] = []
    codes: list[CodeType] = []
    lines: list[int | None] = []
    types: Any = map(_type, frames)
    types_again: Any = map(_type, frames)
    own = compress(frames, map(_is_frame, types))
    in_one_step(
        partial(frames.extend, map(frame_of.__get__, (suspended,), (_type(suspended),))),
        partial(codes.extend, map(_code, own)),
        partial(lines.extend, map(_line, compress(frames, map(_is_frame, types_again)))),
        frames.clear,
    )
    return (codes[0], lines[0] or 0) if codes else None


def _read(tops: Iterable[FrameType | None], wanted: CodeType | None) -> Frames:
    frames: list[FrameType] = []
    found = Frames([], [], [], [], cut=False)
    in_one_step(
        partial(frames.extend, filter(_is_there, tops)),
        partial(frames.extend, takewhile(_is_there, map(_back, islice(frames, LIMIT - 1)))),  # it grows as it is read
        partial(found.codes.extend, map(_code, frames)),
        partial(found.lines.extend, map(_line, frames)),
        partial(found.modules.extend, map(_name_of, map(_globals, frames), repeat("__name__"))),
        partial(found.wanted.extend, compress(frames, map(partial(is_, wanted), found.codes))),
        frames.clear,
    )
    return found._replace(cut=len(found.codes) >= LIMIT)
