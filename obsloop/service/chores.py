"""Do what the thread `pages` does between two answers: the census of tasks, samples for `/`, totals of blocks."""

from obsloop.base import clock
from obsloop.base.guarded import harmless
from obsloop.blocking import totals
from obsloop.service import history
from obsloop.tasks import census

CHORE_SECONDS = census.CENSUS_SECONDS
"""So often is there something to do."""

_census_at = _sample_at = 0.0


def do() -> float:
    """Do what is due, and return after how many seconds to do it again. For one thread. Never raises."""
    global _census_at, _sample_at  # noqa: PLW0603 - one thread
    now = clock.seconds()
    if now >= _census_at:
        _census_at = now + census.take_census() - CHORE_SECONDS / 2
    with harmless:
        totals.fold()
        if now >= _sample_at:
            _sample_at = max(_sample_at, now - history.STEP_SECONDS) + history.STEP_SECONDS
            history.sample()
    return CHORE_SECONDS
