"""Do what the service's threads do between two answers: the census of tasks, samples for `/`, totals and profiles of
blocks, a sample of where tasks wait."""

from obsloop.base import clock
from obsloop.base.guarded import harmless
from obsloop.blocking import profile, totals
from obsloop.service import history
from obsloop.service.routes import PRELOAD_SECONDS, preload, preload_pages
from obsloop.service.timers import Timer
from obsloop.tasks import census, waiting

CHORE_SECONDS = census.CENSUS_SECONDS
"""So often is there something to do."""

_census_at = _sample_at = 0.0


def own_timers() -> list[Timer]:
    """Return what each service does at certain times."""
    return [
        Timer("pages", do, CHORE_SECONDS),
        Timer("metrics", preload, PRELOAD_SECONDS),
        Timer("pages", preload_pages, PRELOAD_SECONDS),
    ]


def do() -> float:
    """Do what is due, and return after how many seconds to do it again. For one thread. Never raises."""
    global _census_at, _sample_at  # noqa: PLW0603 - one thread
    now = clock.seconds()
    if now >= _census_at:
        _census_at = now + census.take_census() - CHORE_SECONDS / 2
    with harmless:
        totals.fold()
        profile.fold()
        if now >= _sample_at:
            _sample_at = max(_sample_at, now - history.STEP_SECONDS) + history.STEP_SECONDS
            history.sample()
    with harmless:
        waiting.go_on()
    return CHORE_SECONDS
