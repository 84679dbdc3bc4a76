"""Count and report slow callbacks and slow iterations, and note what an iteration was spent on.

The loop's thread calls this, through ``hotpath.observer``, only after something took long: never for a fast callback.
"""

from __future__ import annotations

from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from obsloop.base.clock import epoch
from obsloop.blocking import blame, cause, endings, episodes, exemplars, log, recent, watchdog
from obsloop.blocking.blame import Blame, Share
from obsloop.events import SlowCallback, SlowIteration
from obsloop.hotpath import held, marks
from obsloop.instruments import emit, has_listeners
from obsloop.introspect import callbacks, routes, spans
from obsloop.introspect.functions import THE_LOOP, Site
from obsloop.introspect.own_code import Culprit
from obsloop.metrics.counters import KIND_OF_BLOCK, OTHER, STRIDE

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters

_TOP = 10
_MAX_NAMES = 1000
_OTHERS = Site("(others)", "", 0)
_UNNAMED = "(unnamed)"
_LEAST_SHARE = 10
"""One in so many of an iteration's time makes a name share in the blame, where no single callback was slow."""


class ProfileEntry:
    """The time that one name took of an iteration."""

    __slots__ = ("calls", "delay_ns", "kind", "ns", "sampled_calls", "sampled_ns", "site")

    def __init__(self, site: Site, kind: str, delay_ns: int) -> None:
        self.site, self.kind, self.delay_ns = site, kind, delay_ns
        self.ns = self.calls = self.sampled_ns = self.sampled_calls = 0


class IterationProfile:
    """What the present iteration of one loop was spent on, as far as it is known.

    A callback that took a hundredth of the slow iteration's threshold is noted when it returns: without its name in the
    first eighth of that threshold, with it from then on. After half of the threshold the iteration is sampled too: the
    next callback's name stands for the chunk of callbacks that follows.
    """

    __slots__ = (
        "_by_name",
        "_chunk",
        "_chunk_from_ns",
        "_noted_ns",
        "_unnamed_calls",
        "_unnamed_ns",
        "began_ns",
        "blame",
    )

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, began_ns: int) -> None:
        """Begin anew, for the iteration that began at ``began_ns``."""
        self.began_ns = began_ns
        self.blame = Blame()
        """Its slow callbacks."""
        self._by_name: dict[str, ProfileEntry] = {}
        self._chunk: ProfileEntry | None = None
        self._chunk_from_ns = self._noted_ns = self._unnamed_ns = self._unnamed_calls = 0

    def of(self, began_ns: int) -> IterationProfile:
        """Return the profile of the iteration that began at ``began_ns``."""
        if self.began_ns != began_ns:
            self.restart(began_ns)
        return self

    def add(self, site: Site, kind: str, ns: int, delay_ns: int) -> None:
        """Note a callback that has returned after ``ns``."""
        note = self._note(site, kind, delay_ns)
        note.ns += ns
        note.calls += 1
        self._noted_ns += ns

    def add_unnamed(self, ns: int) -> None:
        """Note a callback that has returned after ``ns``, whose name is not worth its cost."""
        self._unnamed_ns += ns
        self._unnamed_calls += 1

    def sample(self, site: Site, kind: str, now_ns: int, calls: int) -> None:
        """Begin a chunk: ``site`` is next, and stands for the ``calls`` that follow."""
        self.end_chunk(now_ns)
        self._chunk = self._note(site, kind, 0)
        self._chunk.sampled_calls += calls
        self._chunk_from_ns = now_ns

    def end_chunk(self, now_ns: int) -> None:
        """Give the time since the last sample to the sampled name, without the callbacks that were noted."""
        if self._chunk is not None:
            self._chunk.sampled_ns += max(0, now_ns - self._chunk_from_ns - self._noted_ns)
            self._chunk = None
        self._noted_ns = 0

    def ranked(self, spent_ns: int) -> list[tuple[int, int, ProfileEntry]]:
        """Return (nanoseconds, calls, entry), longest first. Samples are scaled up to the time that was not noted."""
        profile = list(self._by_name.values())
        sampled_ns = sum(note.sampled_ns for note in profile)
        unknown_ns = max(0, spent_ns - self._unnamed_ns - sum(note.ns for note in profile))
        scale = unknown_ns / sampled_ns if sampled_ns else 0.0
        ranked = [
            (note.ns + round(note.sampled_ns * scale), note.calls + round(note.sampled_calls * scale), note)
            for note in profile
        ]
        return sorted(ranked, key=lambda entry: entry[0], reverse=True)[:_TOP]

    def top(self, ranked: list[tuple[int, int, ProfileEntry]]) -> tuple[tuple[str, float, int], ...]:
        """Return (name, seconds, calls) of what is ``ranked``, and last of all what has no name."""
        unnamed = ((_UNNAMED, self._unnamed_ns / 1e9, self._unnamed_calls),) if self._unnamed_calls else ()
        return (*((note.site.name, ns / 1e9, calls) for ns, calls, note in ranked), *unnamed)

    def _note(self, site: Site, kind: str, delay_ns: int) -> ProfileEntry:
        note = self._by_name.get(site.name)
        if note is None:
            if len(self._by_name) >= _MAX_NAMES:
                site = _OTHERS
            note = self._by_name.setdefault(site.name, ProfileEntry(site, kind, delay_ns))
        return note


def callback(
    loop: Any, counters: Counters, handle: Any, kind: int, ready_ns: int, start_ns: int, end_ns: int, began_ns: int
) -> None:
    """Note a callback that took ``counters.notable_ns`` or longer. If it was slow, count it and emit its event."""
    obs = loop._obsloop
    site = callbacks.site_of_handle(handle)
    spent_ns, delay_ns = end_ns - start_ns, max(0, start_ns - ready_ns)
    kind_name = KIND_OF_BLOCK[kind // STRIDE]
    slow = spent_ns >= counters.slow_ns
    seen = endings.seen(obs, start_ns, end_ns) if slow else None
    if seen is not None:
        site, kind_name = seen.site, seen.kind  # the sample names an eager task's child, the handle its parent
    profile = obs.profile.of(began_ns)
    profile.add(site, kind_name, spent_ns, delay_ns)
    metrics = obs.metrics_of(loop)
    if slow or delay_ns >= counters.slow_ns:
        ids = seen.ids if seen is not None else None  # the span may have ended before the callback did
        ids = ids or spans.span_ids(spans.context(handle, None))
        exemplars.callback(metrics.exemplars, counters, kind, spent_ns, delay_ns, ids)
    if not slow:
        return
    counters.slow_iteration_ns = 0  # it blocked the loop: report this iteration's end, whatever the threshold is
    why, cpu_time = cause.why_and_cpu(obs, counters, start_ns, end_ns)
    culprit = seen.culprit if seen is not None else blame.unseen(obs, handle, site)
    route = seen.route if seen is not None else routes.route_of(spans.context(handle, None))
    profile.blame.add(culprit, why, spent_ns, route)
    metrics.labelled.count("asyncio.eventloop.callback.slow", culprit.function)
    event = SlowCallback(
        loop_name=metrics.name,
        kind=kind_name,
        **site.fields(),
        **culprit.fields(),
        http_route=route,
        duration=spent_ns / 1e9,
        schedule_delay=delay_ns / 1e9,
        started_at=epoch(start_ns),
        detail=seen.detail if seen is not None else site.detail,
        cause=why,
        cpu_time=cpu_time,
    )
    recent.note(event)  # without samples and context: it is kept for long, and contexts hold the program's objects
    if has_listeners(obs.instruments, "on_slow_callback"):
        context = getattr(handle, "_context", None)
        event = replace(
            event,
            samples=endings.samples_of(obs, start_ns),
            context=context if isinstance(context, Context) else None,
            context_seen=held.context_since(obs, start_ns),
        )
        emit(obs.instruments, "on_slow_callback", event)
    exemplars.behind(loop, metrics.exemplars, counters)  # last: the handles behind wait until now


def iteration(loop: Any, counters: Counters, began_ns: int, end_ns: int) -> None:
    """Report the end of an iteration that was slow, or that had to report its end: count it and emit its event."""
    try:
        _iteration(loop, counters, began_ns, end_ns)
    finally:
        held.drop(loop._obsloop)


def _iteration(loop: Any, counters: Counters, began_ns: int, end_ns: int) -> None:
    obs = loop._obsloop
    obs.set_thresholds()
    spent_ns = end_ns - began_ns
    profile = obs.profile.of(began_ns)
    profile.end_chunk(end_ns)
    ranked = profile.ranked(spent_ns)
    why = cause.why(obs, counters, began_ns, end_ns)
    first = ranked[0][2] if ranked else None
    site = first.site if first is not None else Site("", "", 0)
    kind, delay_ns = (first.kind, first.delay_ns) if first is not None else ("other", 0)
    shares = _shares(obs, profile, ranked, began_ns, end_ns, why)
    culprit = shares[0].culprit
    if spent_ns >= obs.slow_iteration_ns:
        seen = endings.seen(obs, began_ns, end_ns, site.name)
        event = SlowIteration(
            loop_name=obs.metrics_of(loop).name,
            kind=kind,
            **site.fields(),
            **culprit.fields(),
            http_route=shares[0].route,
            duration=spent_ns / 1e9,
            schedule_delay=delay_ns / 1e9,
            started_at=epoch(began_ns),
            detail=seen.detail if seen is not None else site.detail,
            cause=why,
            top=profile.top(ranked),
        )
        emit(obs.instruments, "on_slow_iteration", event)
        if not profile.blame:  # else its slow callbacks are reported already
            recent.note(event)
        if not obs.settings.watchdog:  # else the watchdog logs it
            log.ended(event, obs.settings)
    if obs.settings.watchdog:
        sighting = episodes.at_its_end(end_ns, site, kind, delay_ns / 1e9, culprit, shares[0].route)
        watchdog.iteration_ended(loop, obs, counters, began_ns, end_ns, sighting, shares)
    profile.restart(0)


def _shares(
    obs: Any,
    profile: IterationProfile,
    ranked: list[tuple[int, int, ProfileEntry]],
    began_ns: int,
    end_ns: int,
    why: str,
) -> list[Share]:
    """Return who took this iteration's time: the culprits of its slow callbacks or, without any, the names on top."""
    spent_ns = end_ns - began_ns
    if profile.blame:
        return profile.blame.shares(spent_ns)
    found: list[Share] = []
    for ns, _, note in ranked:
        if ns * _LEAST_SHARE < spent_ns and found:
            break
        seen = endings.seen(obs, began_ns, end_ns, note.site.name)
        site = note.site
        culprit = seen.culprit if seen is not None else Culprit(site.name, site.filename, site.lineno, seen=False)
        found.append(Share(culprit, why, ns))
    return blame.in_proportion(found, spent_ns) or [Share(Culprit(*THE_LOOP[:3], seen=False), why, spent_ns)]


def sample(loop: Any, counters: Counters, began_ns: int, handle: Any, calls: int) -> None:
    """Sample an iteration of many callbacks that becomes slow: ``handle`` is next, and stands for ``calls`` of them."""
    obs = loop._obsloop
    kind = KIND_OF_BLOCK[(marks.marks(handle) or obs.foreign.get(id(handle)) or (OTHER,))[0] // STRIDE]
    obs.profile.of(began_ns).sample(callbacks.site_of_handle(handle), kind, counters.tick_ns, calls)
    exemplars.next_one(loop, obs.metrics_of(loop).exemplars, counters, handle, counters.tick_ns)
