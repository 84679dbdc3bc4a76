"""Count web requests, and what each route takes of the loop, for ``obsloop.asgi.Middleware``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obsloop.probes.tasks import TaskTimes

NO_ROUTE = "(none)"
"""The label of requests that matched no route, or whose framework does not say which."""


def ended(loop: Any, route: str, times: TaskTimes) -> None:
    """Count a request that has ended. In the loop's thread."""
    labelled = loop._obsloop.metrics_of(loop).labelled
    route = route or NO_ROUTE
    labelled.count("asyncio.request.count", route)
    for state, seconds in zip(times._fields[:3], times[:3], strict=True):
        labelled.count("asyncio.request.time", route, state, n=round(seconds * 1e9))
