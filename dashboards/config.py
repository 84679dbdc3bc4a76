"""Set all that is a matter of judgement: thresholds, windows, addresses, each with its reason.

Alerts, recording rules, their tests and the dashboards' red lines take their numbers from here. So a change here and
`python dashboards/build.py` change all of them.
"""

from dataclasses import dataclass

RUNBOOK = "https://github.com/obsloop/obsloop/blob/main/dashboards/runbook.md"
"""The address of the runbook. A company with a runbook of its own puts its address here."""
OVERVIEW_UID, LOOPS_UID = "obsloop-overview", "obsloop-loops"
"""Stable, so that links and bookmarks survive an update."""
SERIES_PER_LOOP = 367
"""Series of a loop that has done everything once (tests/dashboards/test_series.py). Goal: 400."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """An alert fires above `value`, held for `hold` (Prometheus' notation)."""

    value: float
    hold: str
    reason: str


BLOCKED = Threshold(
    1.0, "0s", "as /healthz (`unhealthy_after`): users have noticed, and a block ends before it could hold for long"
)
LAG_BOUND = 0.1
"""Seconds that an arrival may wait for the loop: asyncio's `slow_callback_duration`; a bound of the histogram."""
LAG_OBJECTIVE = 0.995
"""The share of arrivals that wait no longer than that. A request arrives at the loop several times, once after each of
its waits: so one of a hundred requests or more meets one of two hundred arrivals."""
LAG_FAST = Threshold(14.4, "2m", "burns 2 % of a month's budget in an hour: the usual factor for a page")
LAG_SLOW = Threshold(6.0, "15m", "burns 5 % of a month's budget in six hours: the usual factor for a ticket")
TIME_BLOCKED = Threshold(
    0.05, "5m", "of the time: one arrival of twenty meets a blocked loop, and a healthy service has no blocks at all"
)
SATURATED = Threshold(
    0.9, "10m", "a queue's wait grows with 1 / (1 - utilization): tenfold at 0.9, and a loop has one thread only"
)
STARVED = Threshold(
    5.0, "1m", "seconds that the oldest job has waited or run while others queue: resolvers give up after 5 s"
)
LEAKING = Threshold(
    100.0, "15m", "more tasks at the lowest of half an hour than at the highest of an hour before: load would go down"
)
PAUSED = Threshold(
    0.1, "10m", "a tenth of the open transports waits for peers that do not read: one slow peer is normal"
)
EXCEPTIONS = Threshold(0.05, "2m", "three in a minute: uncaught errors ought to be rare")
EXCEPTIONS_TIMES = 3.0
"""And so many times the rate of the hour before: errors that are always there belong on a list, not in an alert."""
DROPPED = Threshold(15.0, "5m", "in a quarter of an hour, one a minute: a rare loss is counted and no reason to act")
DISABLED = Threshold(0.0, "0s", "a hook that raised is off until the process ends: one is enough")
GONE = Threshold(0.0, "2m", "a restart takes less; none of a job's targets is left, or one cannot be scraped")
