"""Keep the open episodes, count each at its end, and emit its events.

A loop's thread, or the watchdog, takes an episode out of the loop's observation. The one that took it counts it and
appends it to ``ended_episodes``. The watchdog then emits its events. Each change is one step, so there is no lock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.base import clock
from obsloop.blocking import episodes, log, profile, totals
from obsloop.blocking.blame import Share
from obsloop.blocking.episodes import Episode, Sighting, Story

if TYPE_CHECKING:
    from obsloop.base.settings import Settings
    from obsloop.events import Sample
    from obsloop.introspect.own_code import Culprit
    from obsloop.metrics.runs import Run
REST_NS = 1_000_000_000  # between two checks with the GIL, where healthy loops are checked without it
_MAX_ENDED = 256  # more unseen blocks at once are only counted


class Ended(NamedTuple):
    """An episode that is over, and counted; its events are still to be emitted."""

    story: Story
    episode: Episode | None
    duration_ns: int
    cause: str
    culprit: Culprit
    sighting: Sighting
    settings: Settings


class Open(NamedTuple):
    """An episode that goes on."""

    run: Run
    obs: Any
    episode: Episode


ended_episodes: deque[Ended] = deque()
open_episodes: list[Open] = []


def seen(obs: Any, started_ns: int, ended_ns: int, name: str | None = None) -> Sighting | None:
    """Return what the watchdog saw for most of the time from ``started_ns`` to ``ended_ns``. In the loop's thread.

    With a ``name``, return what it saw of the callback or coroutine with this name.
    """
    episode: Episode | None = obs.episode
    if episode is None:
        return None
    return episodes.longest_sighting(episode.sightings.copy(), started_ns, ended_ns, name)


def samples_of(obs: Any, started_ns: int) -> tuple[Sample, ...]:
    """Return the samples of the callback that began at ``started_ns`` and has just ended. In the loop's thread."""
    episode: Episode | None = obs.episode
    if episode is None:
        return ()
    before = (started_ns - episode.began_ns) / 1e9
    return tuple((seconds - before, frames) for seconds, frames in episode.samples.copy() if seconds >= before)


def end_of_iteration(obs: Any, began_ns: int, ended_ns: int, sighting: Sighting, shares: list[Share]) -> None:
    """Close the episode of ``obs``, or count a block that was not seen. In the loop's thread.

    ``sighting`` is what is known without the watchdog, ``shares`` who took the time, the largest share first.
    """
    episode: Episode | None = obs.episode
    obs.episode = None  # no call since it was read: the watchdog cannot have come between
    if episode is None:
        story = Story(name_of(obs), obs.instruments, sighting, clock.epoch(began_ns))
        _count(obs, story, None, ended_ns - began_ns, sighting, shares)
    else:
        _close(obs, episode, began_ns, ended_ns, shares)


def lost(obs: Any, episode: Episode, ended_ns: int) -> None:
    """Close an episode that is over but whose loop has not reported the end. In the watchdog's thread."""
    if obs.episode is episode:
        obs.episode = None  # no call since it was compared: the loop's thread cannot have come between
        _close(obs, episode, episode.began_ns, ended_ns, [])


def _close(obs: Any, episode: Episode, began_ns: int, ended_ns: int, shares: list[Share]) -> None:
    """Count an episode that the watchdog saw. Without shares, who was seen for longest has all the time."""
    sightings = episode.sightings.copy()
    name = shares[0].culprit.function if shares else None
    by_name = [sighting for sighting in sightings if sighting.culprit.function == name]
    sighting = episodes.longest_sighting(by_name or sightings, began_ns, ended_ns) or episode.sighting
    duration_ns = max(0, ended_ns - episode.began_ns)
    if not shares:
        shares = [Share(sighting.culprit, episode.cause, duration_ns)]
    known = [share._replace(cause=episode.cause) if share.cause == "unknown" else share for share in shares]
    _count(obs, episode.story, episode, duration_ns, sighting, known)


def _count(
    obs: Any, story: Story, episode: Episode | None, duration_ns: int, sighting: Sighting, shares: list[Share]
) -> None:
    """Count the block and queue it for the watchdog. If that is far behind, an unseen block is only counted."""
    labelled = obs.metrics.labelled
    first = shares[0]
    labelled.count("asyncio.eventloop.block.episodes", first.cause)
    labelled.time("asyncio.eventloop.block.duration", duration_ns, first.cause)
    for share in shares:
        labelled.count("asyncio.eventloop.block.time", share.culprit.function, share.cause, n=share.ns)
        labelled.largest("asyncio.eventloop.block.longest", share.ns, share.culprit.function)
    totals.note(story.loop_name, shares, episode.samples.copy() if episode is not None else ())
    profile.note(story.loop_name, shares, episode, duration_ns)
    if len(ended_episodes) < _MAX_ENDED or episode is not None:
        ended_episodes.append(Ended(story, episode, duration_ns, first.cause, first.culprit, sighting, obs.settings))


def name_of(obs: Any) -> str:
    return obs.metrics.name if obs.metrics is not None else obs.settings.name or ""


def report() -> None:
    """Emit the events of the blocks that have ended."""
    while ended_episodes:
        ended = ended_episodes.popleft()
        story, episode, duration_ns, cause, culprit, sighting, settings = ended
        samples = tuple(episode.samples) if episode is not None else ()
        if episode is None:
            story.blocked(duration_ns, cause, samples)
        else:
            open_episodes[:] = [entry for entry in open_episodes if entry.episode is not episode]
        event = story.unblocked(duration_ns, cause, samples, culprit, sighting)
        log.ended(event, settings, samples)


def forget_taken(episode: Episode) -> None:
    """Drop an episode that its loop took out, but whose end has not arrived for a second.

    Usually the end is on its way. It never arrives if the loop's thread was interrupted before it queued it.
    """
    now_ns = clock.REAL()
    if not episode.taken_ns:
        episode.taken_ns = now_ns
    elif now_ns - episode.taken_ns > REST_NS and all(ended.episode is not episode for ended in ended_episodes.copy()):
        open_episodes[:] = [entry for entry in open_episodes if entry.episode is not episode]
