"""Add up blocks by culprit for the last five minutes, hour and day, for the pages of the service.

Loops' threads and the watchdog note blocks, and the service reads. A writer appends to a queue and never waits. The
service empties the queue each second; without a service, a writer does it now and then. Every table is bounded:
culprits without room are added up under one name, and counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from itertools import count
from traceback import FrameSummary
from typing import NamedTuple, TypeVar

from obsloop.base.clock import seconds as monotonic
from obsloop.base.fork import reset_in_child
from obsloop.blocking.blame import Share
from obsloop.events import Sample
from obsloop.introspect.own_code import Culprit

WINDOWS = {"5m": (300, 10), "1h": (3_600, 60), "24h": (86_400, 900)}
"""Window -> its length and the length of its time buckets, in seconds. A window is exact to one time bucket."""
MAX_CULPRITS = 50
"""Lines of culprits in one time bucket; more are added up under ``OTHERS``."""
MAX_STACKS = 100
OTHERS = Culprit("(others)", "", 0, seen=False)
_MAX_QUEUED = 1_000
_FOLD_AT = 64  # a writer empties a queue of so many

_Place = tuple[str, str, str]
"""Loop name, function and file."""
_Line = tuple[str, str, str, int, bool, str]
"""Loop name, function, file, line, whether a sample saw it, and cause."""
_Stack = tuple[FrameSummary, ...]
_Key = TypeVar("_Key")


class _Block(NamedTuple):
    """One culprit's share of one block."""

    number: int
    at: float
    line: _Line
    ns: int
    stack: _Stack


class Sum(NamedTuple):
    """Some blocks, added up."""

    seconds: float = 0.0
    blocks: int = 0
    worst: float = 0.0
    """The longest one, in seconds."""
    last: float = 0.0
    """When the last one ended, by ``clock.seconds``."""

    def plus(self, other: Sum) -> Sum:
        """Return both together."""
        return Sum(
            self.seconds + other.seconds,
            self.blocks + other.blocks,
            max(self.worst, other.worst),
            max(self.last, other.last),
        )


class Group(NamedTuple):
    """The blocks of one culprit."""

    loop_name: str
    function: str
    filename: str
    seen: bool
    """Whether a sample saw one of its lines."""
    windows: dict[str, Sum]
    """By the names of ``WINDOWS``."""
    lines: dict[int, Sum]
    """By the line that blocked, in the longest window; the one with most seconds first."""
    causes: dict[str, Sum]
    """By cause, in the longest window; the one with most seconds first."""
    stack: _Stack
    """The stack of the last block that was sampled; empty if it is not kept."""


class Totals(NamedTuple):
    """All culprits at one moment."""

    groups: list[Group]
    """The one with most seconds in the shortest window first."""
    at: float
    """The moment, by ``clock.seconds``."""
    dropped: int
    """How many blocks were not counted, since too many were queued."""
    folded: int
    """How many shares of blocks were added up under ``OTHERS``."""


class _Window:
    """The time buckets of one window."""

    __slots__ = ("buckets", "length", "step")

    def __init__(self, length: int, step: int) -> None:
        self.length, self.step = length, step
        self.buckets: dict[int, dict[_Line, Sum]] = {}

    def add(self, block: _Block) -> bool:
        """Add a block. Return whether its culprit had room."""
        bucket = self.buckets.setdefault(int(block.at // self.step), {})
        while len(self.buckets) > self.length // self.step + 1:
            del self.buckets[min(self.buckets)]
        line, fits = block.line, True
        if line not in bucket and len(bucket) >= MAX_CULPRITS:
            line, fits = ("", OTHERS.function, "", 0, False, "unknown"), False
        seconds = block.ns / 1e9
        bucket[line] = bucket.get(line, Sum()).plus(Sum(seconds, 1, seconds, block.at))
        return fits

    def sums(self, now: float) -> dict[_Line, Sum]:
        """Return the sums of the window that ends now."""
        first = int((now - self.length) // self.step)
        found: dict[_Line, Sum] = {}
        for index, bucket in self.buckets.items():
            if index >= first:
                for line, total in bucket.items():
                    found[line] = found.get(line, Sum()).plus(total)
        return found


class _State:
    """All tables of a process. A forked child gets a new one."""

    def __init__(self) -> None:
        self.queue: deque[_Block] = deque(maxlen=_MAX_QUEUED)
        self.numbers = count()
        self.next_number = 0
        self.dropped = self.folded = 0
        self.windows = {name: _Window(*lengths) for name, lengths in WINDOWS.items()}
        self.stacks: dict[_Place, _Stack] = {}
        self.folding = threading.Lock()

    def fold(self) -> None:
        """Add what is queued to the tables. Only with ``folding`` held."""
        while self.queue:
            block = self.queue.popleft()
            # A writer takes a number, then queues its block. Another may overtake it: what was missing comes later.
            self.dropped += -1 if block.number < self.next_number else block.number - self.next_number
            self.next_number = max(self.next_number, block.number + 1)
            fits = [window.add(block) for window in self.windows.values()]
            self.folded += not all(fits)
            if block.stack:
                place = block.line[:3]
                self.stacks.pop(place, None)  # the last one becomes the newest entry
                self.stacks[place] = block.stack
                while len(self.stacks) > MAX_STACKS:
                    del self.stacks[next(iter(self.stacks))]


_state = _State()


def note(loop_name: str, shares: Iterable[Share], samples: Iterable[Sample] = ()) -> None:
    """Note a block that has just ended. Quick, from any thread, and never raises."""
    state = _state
    try:
        at = monotonic()
        samples = tuple(samples)
        for share in shares:
            culprit = share.culprit
            line = loop_name, culprit.function, culprit.filename, culprit.lineno, culprit.seen, share.cause
            state.queue.append(_Block(next(state.numbers), at, line, share.ns, _stack_of(culprit, samples)))
        if len(state.queue) >= _FOLD_AT and state.folding.acquire(blocking=False):
            try:
                state.fold()
            finally:
                state.folding.release()
    except Exception:  # out of memory: the loop matters more than its history
        return


def fold() -> None:
    """Empty the queue into the tables. For the service's threads."""
    state = _state
    with state.folding:
        state.fold()


def totals() -> Totals:
    """Return the sums of all windows that end now. For the service's threads."""
    state = _state
    with state.folding:
        state.fold()
        now = monotonic()
        sums = {name: window.sums(now) for name, window in state.windows.items()}
        stacks = dict(state.stacks)
        dropped, folded = state.dropped, state.folded
    places = dict.fromkeys(line[:3] for window in sums.values() for line in window)
    longest = list(WINDOWS)[-1]
    lines: dict[_Place, dict[int, Sum]] = {place: {} for place in places}
    causes: dict[_Place, dict[str, Sum]] = {place: {} for place in places}
    seen: set[_Place] = set()
    windows: dict[_Place, dict[str, Sum]] = {place: dict.fromkeys(WINDOWS, Sum()) for place in places}
    for name, window in sums.items():
        for line, total in window.items():
            place, (lineno, sampled, cause) = line[:3], line[3:]
            windows[place][name] = windows[place][name].plus(total)
            if sampled:
                seen.add(place)
            if name == longest:
                lines[place][lineno] = lines[place].get(lineno, Sum()).plus(total)
                causes[place][cause] = causes[place].get(cause, Sum()).plus(total)
    groups = [
        Group(
            *place, place in seen, windows[place], _ranked(lines[place]), _ranked(causes[place]), stacks.get(place, ())
        )
        for place in places
    ]
    groups.sort(key=lambda group: [group.windows[name].seconds for name in WINDOWS], reverse=True)
    return Totals(groups, now, dropped, folded)


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _state  # noqa: PLW0603 - as a whole: the parent's may have been half-way through a change
    _state = _State()


def _ranked(sums: dict[_Key, Sum]) -> dict[_Key, Sum]:
    return dict(sorted(sums.items(), key=lambda item: item[1].seconds, reverse=True))


def _stack_of(culprit: Culprit, samples: tuple[Sample, ...]) -> _Stack:
    """Return the last sampled stack that shows the culprit's line; else the last one that shows its function."""
    found: _Stack = ()
    for _, frames in reversed(samples):
        for frame in frames:
            if getattr(frame, "function", "") == culprit.function:
                if frame.lineno == culprit.lineno:
                    return frames
                found = found or frames
    return found
