"""Hold what is known of one blocked episode, and make its events.

An episode is counted when it ends, in the loop's thread. Its events come from the watchdog's thread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from obsloop.blocking import recent
from obsloop.blocking.usage import SchedStat
from obsloop.events import LoopBlocked, LoopUnblocked, Sample
from obsloop.instruments import Instruments, emit
from obsloop.introspect.functions import Site
from obsloop.introspect.own_code import Culprit
from obsloop.introspect.spans import Ids

MAX_SAMPLES = 16
_LONGEST_NS = 1_000_000_000  # between two checks whether the loop's thread is still there
_SEEN_AT_END = "seen at its end"


class Sighting(NamedTuple):
    """What one sample of a blocked loop showed."""

    at_ns: int
    site: Site
    kind: str
    detail: str
    """The site's own, what the culprit's line had called, and the active span."""
    culprit: Culprit
    schedule_delay: float
    route: str = ""
    """Of the web request, if there is one."""
    ids: Ids | None = None
    """The ids of the active span, if that is sampled."""


class Story(NamedTuple):
    """What the events of an episode have in common: what its first sample showed."""

    loop_name: str
    instruments: Instruments
    sighting: Sighting
    started_at: float

    def blocked(self, duration_ns: int, cause: str, samples: tuple[Sample, ...]) -> LoopBlocked:
        """Emit that the loop is blocked."""
        event = self.event(duration_ns, cause, samples)
        recent.note(event)
        emit(self.instruments, "on_loop_blocked", event)
        return event

    def unblocked(
        self, duration_ns: int, cause: str, samples: tuple[Sample, ...], culprit: Culprit, seen: Sighting
    ) -> LoopUnblocked:
        """Emit that the loop moved on. By now it is known who took most of the time, and ``seen`` is a sample of it."""
        common: dict[str, Any] = {**self._common(), **culprit.fields(), "detail": seen.detail, "http_route": seen.route}
        event = LoopUnblocked(duration=duration_ns / 1e9, cause=cause, samples=samples, **common)
        recent.note(event)
        emit(self.instruments, "on_loop_unblocked", event)
        return event

    def event(self, duration_ns: int, cause: str, samples: tuple[Sample, ...]) -> LoopBlocked:
        """Return the event without emitting it."""
        return LoopBlocked(duration=duration_ns / 1e9, cause=cause, samples=samples, **self._common())

    def _common(self) -> dict[str, Any]:
        site = self.sighting.site
        return {
            "loop_name": self.loop_name,
            "kind": self.sighting.kind,
            **site.fields(),
            **self.sighting.culprit.fields(),
            "http_route": self.sighting.route,
            "detail": self.sighting.detail,
            "schedule_delay": self.sighting.schedule_delay,
            "started_at": self.started_at,
        }


class Episode:
    """A stretch of time in which a loop did not poll: from the return of one poll to the call of the next."""

    __slots__ = (
        "began_ns",
        "cause",
        "logged",
        "next_ns",
        "next_sample_ns",
        "queue",
        "samples",
        "sighting",
        "sightings",
        "story",
        "taken_ns",
    )

    def __init__(self, began_ns: int, story: Story, sighting: Sighting, sample: Sample, cause: str) -> None:
        self.began_ns = began_ns
        self.story = story
        self.sighting = sighting
        """The last one."""
        self.sightings = [sighting]
        """All of them, one for each sample."""
        self.samples: list[Sample] = [sample]
        self.cause = cause
        self.logged = False
        self.queue: SchedStat | None = None
        """The kernel's numbers of the loop's thread at the first sample: what they grow by later is the block's."""
        self.next_sample_ns = self.next_ns = 0
        self.taken_ns = 0
        """When the watchdog first found that the loop's thread had taken it to report its end."""

    def plan(self, now_ns: int, unhealthy_ns: int) -> None:
        """Set when the next check and the next sample are due. A sample is due when the age has doubled."""
        if now_ns >= self.next_sample_ns:
            self.next_sample_ns = now_ns + (now_ns - self.began_ns)
        self.next_ns = now_ns + _LONGEST_NS
        if len(self.samples) < MAX_SAMPLES:
            self.next_ns = min(self.next_ns, self.next_sample_ns)
        if not self.logged and self.began_ns + unhealthy_ns > now_ns:
            self.next_ns = min(self.next_ns, self.began_ns + unhealthy_ns)


def longest_sighting(
    sightings: list[Sighting], started_ns: int, ended_ns: int, name: str | None = None
) -> Sighting | None:
    """Return the sighting, from ``started_ns`` to ``ended_ns``, whose culprit lasted longest; None without any.

    With a ``name``, only sightings of the callback or coroutine with this name count. Each sighting stands for the time
    around it, up to the middle between it and the next. The last one alone would not do: it may show the line after the
    block. First the function that lasted longest is chosen, then its line.
    """
    within = [sighting for sighting in sightings if started_ns <= sighting.at_ns]
    by_function: dict[tuple[str, str], int] = {}
    by_line: dict[tuple[str, str, int], int] = {}
    last: dict[tuple[str, str, int], Sighting] = {}
    from_ns = started_ns
    for i, sighting in enumerate(within):
        to_ns = (sighting.at_ns + within[i + 1].at_ns) // 2 if i + 1 < len(within) else ended_ns
        spent_ns, from_ns = max(0, to_ns - from_ns), to_ns
        if name is not None and sighting.site.name != name:
            continue
        function = sighting.site.name, sighting.culprit.function
        line = (*function, sighting.culprit.lineno)
        by_function[function] = by_function.get(function, 0) + spent_ns
        by_line[line] = by_line.get(line, 0) + spent_ns
        last[line] = sighting
    if not by_function:
        return None
    longest = max(by_function, key=lambda function: by_function[function])
    return last[max((line for line in by_line if line[:2] == longest), key=lambda line: by_line[line])]


def at_its_end(
    ended_ns: int, site: Site, kind: str, schedule_delay: float, culprit: Culprit, route: str = ""
) -> Sighting:
    """Return what is known of an episode that the watchdog did not see while it lasted."""
    detail = f"{site.detail}; {_SEEN_AT_END}" if site.detail else _SEEN_AT_END
    return Sighting(ended_ns, site, kind, detail, culprit, schedule_delay, route)
