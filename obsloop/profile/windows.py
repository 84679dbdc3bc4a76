"""Keep stacks and their times for a day, in a ring of time buckets whose memory is bounded.

The last hour is kept in buckets of ten seconds, the rest of the day in buckets of ten minutes. What all buckets keep is
bounded: ``MAX_CELLS`` pairs of numbers (about 200 bytes each), ``MAX_STACKS`` stacks of at most ``MAX_DEPTH`` frames
and ``MAX_FRAMES`` different frames. That is 8 MB at the worst, and mostly some ten kilobytes: only what blocked or
waited takes room.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from obsloop.base import clock
from obsloop.metrics.self_metrics import dropped
from obsloop.profile.data import MAX_STACKS, OTHERS, Frame, Key, Labels, Profile, make

FINE_SECONDS, COARSE_SECONDS = 10, 600
FINE_FOR, KEPT_FOR = 3_600, 86_400
"""For how many seconds the fine buckets, and all buckets, are kept."""
MAX_CELLS = 20_000
MAX_FRAMES = 10_000
MAX_DEPTH = 64
"""Of one stack: the innermost frames are kept."""

_Stack = tuple[tuple[int, ...], Labels]
_OTHERS: _Stack = ((), ())


class _Bucket(NamedTuple):
    """The sums of some seconds."""

    start: int
    """In seconds, by ``clock.seconds``."""
    length: int
    cells: dict[int, tuple[int, int]]
    """Number of the stack -> nanoseconds and count."""

    def add(self, number: int, ns: int, count: int) -> bool:
        """Add to a cell. Return whether that is new."""
        known = self.cells.get(number)
        self.cells[number] = (ns, count) if known is None else (known[0] + ns, known[1] + count)
        return known is None


class Recent:
    """Stacks of the last day. Its owner lets one thread at a time in."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._frames: dict[Frame, int] = {}
        self._stacks: dict[_Stack, int] = {_OTHERS: 0}
        self._next = 1
        self._fine: deque[_Bucket] = deque()
        self._coarse: deque[_Bucket] = deque()
        self._cells = 0
        self._may_forget = False
        """Whether buckets were dropped since unused stacks were last looked for."""

    def add(self, at: float, frames: Sequence[Frame], labels: Labels, ns: int, count: int = 1) -> None:
        """Add the time that ``count`` samples of a stack stand for. ``at``: their end, by ``clock.seconds``."""
        self._age(at)
        number = self._number_of(frames, labels)
        if number == 0:
            dropped["profile"] += count
        start = int(at // FINE_SECONDS) * FINE_SECONDS
        if not self._fine or self._fine[-1].start < start:
            self._fine.append(_Bucket(start, FINE_SECONDS, {}))
        self._cells += self._fine[-1].add(number, ns, count)
        self._age(at)

    def profile(self, seconds: float, now: float, epoch: float) -> Profile:
        """Return the profile of the last ``seconds``, exact to one bucket. ``epoch``: ``now`` since the epoch."""
        self._age(now)
        sums: dict[int, tuple[int, int]] = {}
        began = now
        for bucket in (*self._coarse, *self._fine):
            if bucket.start + bucket.length > now - seconds:
                began = min(began, bucket.start)
                for number, (ns, count) in bucket.cells.items():
                    known = sums.get(number, (0, 0))
                    sums[number] = known[0] + ns, known[1] + count
        tables = list(self._frames)
        keys: dict[int, Key] = {number: (tuple(tables[i] for i in s[0]), s[1]) for s, number in self._stacks.items()}
        keys[0] = (OTHERS,), ()
        found = ((keys[number], ns, count) for number, (ns, count) in sums.items())
        covered = min(seconds, now - began) if sums else seconds
        return make(self._what, epoch - covered, covered, sums.get(0, (0, 0))[1], found, MAX_STACKS + 1)

    def _number_of(self, frames: Sequence[Frame], labels: Labels) -> int:
        """Return the number of a stack; 0 if there is no room for it."""
        for _ in range(2):
            kept = frames[-MAX_DEPTH:]
            known = all(frame in self._frames for frame in kept)
            if known:
                stack = tuple(self._frames[frame] for frame in kept), labels
                number = self._stacks.get(stack)
                if number is not None:
                    return number
            if len(self._stacks) <= MAX_STACKS and (known or len(self._frames) + len(kept) <= MAX_FRAMES):
                stack = tuple(self._frames.setdefault(frame, len(self._frames)) for frame in kept), labels
                self._stacks[stack] = self._next
                self._next += 1
                return self._next - 1
            if not self._may_forget:
                break
            self._forget()
        return 0

    def _age(self, now: float) -> None:
        """Move old fine buckets into coarse ones, and drop what is too old or too much."""
        while self._fine and self._fine[0].start < now - FINE_FOR:
            old = self._fine.popleft()
            start = old.start // COARSE_SECONDS * COARSE_SECONDS
            if not self._coarse or self._coarse[-1].start < start:
                self._coarse.append(_Bucket(start, COARSE_SECONDS, {}))
            for number, (ns, count) in old.cells.items():
                self._cells += self._coarse[-1].add(number, ns, count)
            self._cells -= len(old.cells)
        while self._coarse and (self._coarse[0].start < now - KEPT_FOR or self._cells > MAX_CELLS):
            self._cells -= len(self._coarse.popleft().cells)
            self._may_forget = True
        while len(self._fine) > 1 and self._cells > MAX_CELLS:
            self._cells -= len(self._fine.popleft().cells)
            self._may_forget = True

    def _forget(self) -> None:
        """Drop stacks that no bucket has any more, and frames that no stack has."""
        self._may_forget = False
        used = {0}.union(*(bucket.cells for bucket in (*self._coarse, *self._fine)))
        tables = list(self._frames)
        frames: dict[Frame, int] = {}
        self._stacks = {
            (tuple(frames.setdefault(tables[i], len(frames)) for i in stack), labels): number
            for (stack, labels), number in self._stacks.items()
            if number in used
        }
        self._frames = frames


def now() -> tuple[float, float]:
    """Return the present moment by ``clock.seconds`` and since the epoch."""
    return clock.seconds(), time.time()
