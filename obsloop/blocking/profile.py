"""Add up the time in which loops were blocked, by stack, from the watchdog's samples.

A loop's thread, or the watchdog, notes a block at its end: it appends to a queue and never waits. The service's thread
``pages`` empties the queue each second; without a service, a writer does it now and then.

The sum of the profile is that of ``asyncio.eventloop.block.time``: each block adds its whole duration. A sample stands
for the time around it, up to the middle between it and the next. Where a culprit of a block was not sampled, its time
is under its function, in a frame ``(not sampled)``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from traceback import FrameSummary
from typing import TYPE_CHECKING, NamedTuple

from obsloop.base.clock import seconds as monotonic
from obsloop.base.fork import reset_in_child
from obsloop.metrics.self_metrics import dropped
from obsloop.profile import windows
from obsloop.profile.data import NOT_SAMPLED, Frame, Labels, Profile
from obsloop.profile.labels import labels, task_label

if TYPE_CHECKING:
    from obsloop.blocking.blame import Share
    from obsloop.blocking.episodes import Episode, Sighting
    from obsloop.events import Sample

_MAX_QUEUED = 1_000
_FOLD_AT = 64  # a writer empties a queue of so many


class _Block(NamedTuple):
    """A block that is over."""

    at: float
    loop_name: str
    shares: tuple[Share, ...]
    sightings: tuple[Sighting, ...]
    samples: tuple[Sample, ...]
    began_ns: int
    ended_ns: int


class _State:
    """All that a process keeps. A forked child gets a new one."""

    def __init__(self) -> None:
        self.queue: deque[_Block] = deque()
        self.recent = windows.Recent("blocked")
        self.folding = threading.Lock()

    def fold(self) -> None:
        """Add what is queued to the profile. Only with ``folding`` held."""
        while self.queue:
            block = self.queue.popleft()
            for frames, found, ns, count in split(block):
                self.recent.add(block.at, frames, found, ns, count)


_state = _State()


def note(loop_name: str, shares: Sequence[Share], episode: Episode | None, duration_ns: int) -> None:
    """Note a block that has just ended. Quick, from any thread, and never raises."""
    state = _state
    try:
        if len(state.queue) >= _MAX_QUEUED:
            dropped["profile"] += 1
            return
        seen: tuple[tuple[Sighting, ...], tuple[Sample, ...], int] = (), (), 0
        if episode is not None:
            seen = tuple(episode.sightings), tuple(episode.samples), episode.began_ns
        state.queue.append(_Block(monotonic(), loop_name, tuple(shares), *seen, seen[2] + duration_ns))
        if len(state.queue) >= _FOLD_AT and state.folding.acquire(blocking=False):
            try:
                state.fold()
            finally:
                state.folding.release()
    except Exception:  # out of memory: the loop matters more than its profile
        return


def fold() -> None:
    """Empty the queue into the profile. For the service's threads."""
    state = _state
    with state.folding:
        state.fold()


def profile(seconds: float) -> Profile:
    """Return the profile of the blocks that ended in the last ``seconds``. For the service's threads."""
    state = _state
    with state.folding:
        state.fold()
        return state.recent.profile(seconds, *windows.now())


def split(block: _Block) -> Iterator[tuple[tuple[Frame, ...], Labels, int, int]]:
    """Share a block out among its samples: yield stack, labels, nanoseconds and count.

    Each culprit's share goes to the samples that show its function, and to the other samples of the same callbacks.
    """
    seen = list(zip(block.sightings, block.samples, strict=False))  # the watchdog may append while they are copied
    weights = _weights([sighting.at_ns for sighting, _ in seen], block.began_ns, block.ended_ns)
    functions = {share.culprit.function for share in block.shares}
    in_callback = {s.site.name: s.culprit.function for s, _ in reversed(seen) if s.culprit.function in functions}
    by_function: dict[str, list[int]] = {}
    for i, (sighting, _) in enumerate(seen):
        function = sighting.culprit.function
        if function not in functions:
            function = in_callback.get(sighting.site.name, "")
        by_function.setdefault(function, []).append(i)
    counted: set[int] = set()
    for share in block.shares:
        culprit = share.culprit
        chosen = by_function.get(culprit.function, [])
        if not chosen:
            outer: Frame = (culprit.function, culprit.filename, culprit.lineno, True)
            found = labels(cause=share.cause, culprit=culprit.function, route=share.route, loop=block.loop_name)
            yield (outer, NOT_SAMPLED), found, share.ns, 0
            continue
        whole_ns, rest_ns = sum(weights[i] for i in chosen), share.ns
        for i in chosen:
            sighting, (_, frames) = seen[i]
            ns = rest_ns if i == chosen[-1] else share.ns * weights[i] // whole_ns
            rest_ns -= ns
            found = labels(
                cause=share.cause,
                culprit=culprit.function,
                route=share.route or sighting.route,
                task=task_label(sighting.site.task_name),
                loop=block.loop_name,
            )
            yield frames_of(frames), found, ns, int(i not in counted)
            counted.add(i)


def frames_of(stack: Sequence[FrameSummary]) -> tuple[Frame, ...]:
    """Return a sampled stack as frames of a profile."""
    return tuple(
        (getattr(f, "function", "") or f.name, f.filename, f.lineno or 0, bool(getattr(f, "own", False))) for f in stack
    )


def _weights(moments: Sequence[int], began_ns: int, ended_ns: int) -> list[int]:
    """Return for how many nanoseconds each sample stands: up to the middle between it and its neighbours."""
    found: list[int] = []
    from_ns = began_ns
    for i, at_ns in enumerate(moments):
        to_ns = (at_ns + moments[i + 1]) // 2 if i + 1 < len(moments) else ended_ns
        found.append(max(1, to_ns - from_ns))
        from_ns = to_ns
    return found


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _state  # noqa: PLW0603 - as a whole: the parent's may have been half-way through a change
    _state = _State()
