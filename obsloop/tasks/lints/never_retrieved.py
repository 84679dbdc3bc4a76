"""Exceptions that were never retrieved: a task failed, or a future was given an exception, and no code read it.

asyncio notices this when the task is released, and calls the loop's exception handler. From there ``loop.exceptions``
calls this module, in the thread that released the task. So this lint scans nothing. asyncio reports the exception too,
to the program's handler or in the log, so there is no second log line.
"""

from __future__ import annotations

from typing import Any

from obsloop.introspect import attributes, coroutines
from obsloop.introspect.functions import Site
from obsloop.metrics.self_metrics import dropped
from obsloop.tasks.lints import findings

LINT = "exception_never_retrieved"
MAX_KINDS = 1_000
NEVER_RETRIEVED = " exception was never retrieved"
"""How asyncio's message ends, after the class of the future."""


class NeverRetrieved:
    """The lint."""

    __slots__ = ("_groups", "_seen")

    def __init__(self) -> None:
        self._groups = findings.Groups()
        self._seen: dict[findings.Key, int] = {}

    def add(self, obs: Any, future: Any, error_type: str, detail: str) -> None:
        """Count and report an exception that was not retrieved."""
        findings.add(obs, LINT)
        is_task = attributes.is_a(future, coroutines.TASKS)
        site = (
            coroutines.site_of_task(future)
            if is_task
            else Site(attributes.class_name(attributes.class_of(future)), "", 0)
        )
        key = (id(obs.counters), error_type, *site[:3])
        if key not in self._seen and len(self._seen) >= MAX_KINDS:
            dropped["task_lint"] += 1
            return
        n = self._seen[key] = self._seen.get(key, 0) + 1
        if self._groups.is_news(key, n):
            message = f"{'failed with' if is_task else 'was given'} an exception that was never retrieved: {error_type}"
            findings.tell(obs, LINT, site, message, n=n, detail=detail, log=False)
