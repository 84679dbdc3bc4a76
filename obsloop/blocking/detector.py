"""Check from the watchdog's thread whether a loop is blocked.

A loop is blocked when its present iteration, or its present callback, has lasted too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from obsloop.base import clock
from obsloop.blocking import cause as causes, log, usage
from obsloop.blocking.endings import Open, forget_taken, lost, name_of, open_episodes
from obsloop.blocking.episodes import MAX_SAMPLES, Episode, Story
from obsloop.blocking.sighting import see
from obsloop.hotpath import held
from obsloop.hotpath.displaced import is_displaced
from obsloop.introspect import frames as _frames
from obsloop.metrics import runs
from obsloop.metrics.counters import IN_CALLBACK, IN_IDLE, IN_OVERHEAD, NEVER_NS

if TYPE_CHECKING:
    from obsloop.metrics.runs import Run

FLOOR_NS = 5_000_000  # between two checks
MIN_THRESHOLD_NS = 10_000_000  # for blocks that last; a shorter one is seen at its end
_CHILDREN_NS = 20_000_000  # between two checks of a blocked loop with child processes: one of them may end

BUSY = (IN_OVERHEAD, IN_CALLBACK)


def wants_watching(run: Run) -> bool:
    loop = run.loop()
    return loop is not None and loop._obsloop.settings.watchdog


class Life(Protocol):
    """What a check writes of the thread that makes it."""

    wakeup: Any
    watched_ns: int
    """When it last checked a loop."""
    polls_ns: int
    """When it is to look into the polls of uvloop's loops again."""
    next_ns: int
    """When its next check is due."""


def look(life: Life, run: Run) -> None:
    """Check one loop: open its episode, go on with it or close it; else measure the healthy loop."""
    loop = run.loop()
    if loop is None or not loop._obsloop.settings.watchdog:
        return
    life.watched_ns = clock.REAL()
    if clock.monotonic_ns is not clock.REAL:
        return  # with a test's clock, blocks are seen only at their end
    obs, counters = loop._obsloop, run.counters
    if obs.partial and not _look_into_poll(life, loop, counters.state):
        return
    state, began_ns, tick_ns = counters.state, counters.began_ns, counters.tick_ns
    if obs.held and state not in BUSY:
        held.wake(loop)
    now_ns = clock.REAL()
    slow_ns = max(obs.slow_ns, MIN_THRESHOLD_NS)
    slow_iteration_ns = max(obs.slow_iteration_ns, MIN_THRESHOLD_NS)
    due_ns = now_ns + min(slow_ns, slow_iteration_ns)
    if state in BUSY and began_ns:  # before the first poll of a run, no code of the program runs
        due_ns = min(due_ns, began_ns + slow_iteration_ns)
        if state == IN_CALLBACK:
            due_ns = min(due_ns, tick_ns + slow_ns)
    episode: Episode | None = obs.episode
    if episode is not None and episode.began_ns != began_ns and began_ns:
        lost(obs, episode, tick_ns)  # the loop moved on without reporting the end
        episode = None
    if (episode is not None or due_ns <= now_ns) and is_displaced(loop):
        if episode is not None:
            lost(obs, episode, now_ns)
        return
    if episode is not None:
        due_ns = _go_on(run, loop, episode, now_ns)
    elif due_ns > now_ns:
        usage.look(obs, counters, run.native_id)
    elif not usage.is_over(obs, began_ns):
        callback_ns = 0 if began_ns + slow_iteration_ns <= now_ns else tick_ns
        episode = _see_first(run, loop, began_ns, callback_ns, now_ns)
        due_ns = now_ns + FLOOR_NS if episode is None else episode.next_ns
    life.next_ns = min(life.next_ns, due_ns, _look_at_children(obs, state))


def _look_into_poll(life: Life, loop: Any, state: int) -> bool:
    """Note in the counters whether uvloop's poll has called protocols for so long that the loop is blocked.

    libuv itself calls obsloop only after the poll. Return False if the loop does not run any more.
    """
    obs = loop._obsloop
    if obs.adopted and not loop.is_running():
        obs.end_run()  # it began before obsloop could see its end
        return False
    if state == IN_IDLE:
        slow_ns = max(min(obs.slow_ns, obs.slow_iteration_ns), MIN_THRESHOLD_NS)
        life.polls_ns = min(life.polls_ns, clock.REAL() + slow_ns)
        obs.look_into_poll(slow_ns)
    return True


def _look_at_children(obs: Any, state: int) -> int:
    """Ask which child processes of a busy loop have ended. Return when to ask again."""
    if state not in BUSY or not obs.processes.live:
        return NEVER_NS
    obs.processes.look()
    return clock.REAL() + _CHILDREN_NS if obs.episode is not None else NEVER_NS


def _see_first(run: Run, loop: Any, began_ns: int, callback_ns: int, now_ns: int) -> Episode | None:
    """Open an episode for a loop that is blocked by its iteration, or by the callback that began at ``callback_ns``.

    0 stands for the iteration. Return None if the loop moved on meanwhile.
    """
    obs, counters = loop._obsloop, run.counters
    found = see(run, loop, now_ns)
    if found is None:
        return None
    sighting, frames = found
    cause = causes.why(obs, counters, began_ns, now_ns)
    story = Story(name_of(obs), obs.instruments, sighting, clock.epoch(began_ns))
    samples = ((now_ns - began_ns) / 1e9, frames)
    episode = Episode(began_ns, story, sighting, samples, cause)
    episode.queue = usage.measure(counters, run.native_id).queue
    unhealthy_ns = int(obs.settings.unhealthy_after * 1e9)
    episode.plan(now_ns, unhealthy_ns)
    # The sample took a while. No call from here on until the episode is open: the loop's thread cannot come between.
    known = obs.usage
    if (
        counters.began_ns != began_ns
        or counters.state not in BUSY
        or (callback_ns and counters.tick_ns != callback_ns)
        or (known is not None and known.over_ns == began_ns)
    ):
        return None
    obs.episode = episode
    counters.slow_iteration_ns = 0
    open_episodes.append(Open(run, obs, episode))
    event = story.blocked(now_ns - began_ns, cause, tuple(episode.samples))
    if now_ns - began_ns >= unhealthy_ns:
        episode.logged = True
        log.lasting(event)
    return episode


def _go_on(run: Run, loop: Any, episode: Episode, now_ns: int) -> int:
    """Go on with an episode: take another sample or log a line if due. Return when the next check is due."""
    obs = loop._obsloop
    if now_ns < episode.next_ns:
        return episode.next_ns
    duration_ns = now_ns - episode.began_ns
    if now_ns >= episode.next_sample_ns and len(episode.samples) < MAX_SAMPLES:
        found = see(run, loop, now_ns)
        if found is not None and obs.episode is episode:
            episode.sighting, frames = found
            episode.sightings.append(episode.sighting)
            episode.samples.append((duration_ns / 1e9, frames))
    unhealthy_ns = int(obs.settings.unhealthy_after * 1e9)
    if not episode.logged and duration_ns >= unhealthy_ns:
        episode.logged = True
        episode.cause = causes.why(obs, run.counters, episode.began_ns, now_ns)
        log.lasting(episode.story.event(duration_ns, episode.cause, tuple(episode.samples)))
    episode.plan(now_ns, unhealthy_ns)
    return episode.next_ns


def close_gone(life: Life) -> None:
    """Close the episodes of loops that went away while they were blocked."""
    for run, obs, episode in open_episodes.copy():
        if obs.episode is not episode:
            forget_taken(episode)
            continue
        inner = runs.runs.get(run.ident)
        while inner is not None and inner is not run:
            inner = inner.outer
        closed = obs.counters is not run.counters
        if inner is None or closed or run.loop() is None or not _frames.is_alive(run.ident):
            now_ns = clock.REAL()
            lost(obs, episode, now_ns)
            life.wakeup.notify()
