"""Keep the last slow callbacks, slow iterations and blocks of this process, for ``/slow``.

Loops' threads and the watchdog write, the service reads. No locks: a writer takes single atomic steps.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import NamedTuple

from obsloop.base.clock import seconds as monotonic
from obsloop.base.fork import reset_in_child
from obsloop.events import LoopBlocked, LoopUnblocked, SlowCallback, SlowIteration

KEPT = 100
_MAX_LASTING = 100  # blocks at once; beyond that are blocks of loops that went away while blocked, and never end

Noted = SlowCallback | SlowIteration | LoopBlocked | LoopUnblocked


class Recent(NamedTuple):
    """The kept events at one moment."""

    events: list[Noted]
    """Newest first, one for each block: its ``LoopBlocked`` while it lasts, then its ``LoopUnblocked``."""
    older: int
    """How many there were before these."""
    since: list[float]
    """For each event, how many seconds ago it was noted, by the monotonic clock."""


class _Entry:
    """One event; that of a block is replaced by the block's next one."""

    __slots__ = ("number", "seen")

    def __init__(self, number: int, event: Noted) -> None:
        self.number = number
        self.seen = event, monotonic()
        """The event and when it was noted: one tuple, so that a reader gets a matching pair."""


class _Kept:
    """The entries, and which of them are blocks that still last. A child after fork gets a new one."""

    __slots__ = ("entries", "lasting", "numbers")

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque(maxlen=KEPT)
        self.lasting: dict[tuple[str, float], _Entry] = {}
        self.numbers = count()  # the deque does not know how many entries it has dropped

    def note_block(self, event: LoopBlocked | LoopUnblocked) -> None:
        """Begin an episode's entry, or put the newer event of the same episode into it."""
        episode = (event.loop_name, event.started_at)
        over = isinstance(event, LoopUnblocked)
        entry = self.lasting.pop(episode, None) if over else self.lasting.get(episode)
        if entry is None:
            entry = _Entry(next(self.numbers), event)
            if not over:
                while len(self.lasting) >= _MAX_LASTING:
                    self.lasting.pop(next(iter(self.lasting)), None)
                self.lasting[episode] = entry
            self.entries.append(entry)
            return
        entry.seen = event, monotonic()
        if entry not in self.entries.copy():  # the entry fell off the end while the block lasted
            self.entries.append(entry)


_kept = _Kept()


def note(event: Noted) -> None:
    """Keep ``event``. Quick, from any thread, and never raises."""
    now = _kept
    try:
        if isinstance(event, (LoopBlocked, LoopUnblocked)):
            now.note_block(event)
        else:
            now.entries.append(_Entry(next(now.numbers), event))
    except Exception:  # out of memory, or two watchdogs at once: the loop matters more than its history
        return


def kept() -> Recent:
    """Return the kept events, and how many there were before them. From any thread."""
    entries = _copy(_kept.entries)
    noted = max((entry.number for entry in entries), default=-1) + 1
    now = monotonic()
    seen = [entry.seen for entry in reversed(entries)]
    return Recent([event for event, _ in seen], noted - len(entries), [max(0.0, now - at) for _, at in seen])


def dropped() -> int:
    """Return how many events of this process are no longer kept."""
    return kept().older


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _kept  # noqa: PLW0603 - as a whole: the parent's may have been half-way through a change
    _kept = _Kept()


def _copy(entries: deque[_Entry]) -> list[_Entry]:
    """Return all entries. Copying is one step under the GIL; elsewhere a writer may come between: then try again."""
    for _ in range(100):
        try:
            return list(entries)
        except RuntimeError:
            continue
    return []
