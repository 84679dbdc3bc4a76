"""The way from the hot path to ``blocking``, for long callbacks and iterations: through the loop's ``Observation``.

Every kind of observed loop calls it, and only after something has taken long. Nothing here raises.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from obsloop.metrics.counters import Counters

CHUNK = 64
"""How many callbacks of a batch are called before the next check whether the iteration becomes a slow one."""

_CHUNK_RANGE = range(CHUNK)


def notable(
    self: Any,
    counters: Counters,
    handle: Any,
    kind: int,
    ready_ns: int,
    start_ns: int,
    end_ns: int,
    began_ns: int,
    last: bool = False,
) -> int:
    """Report a callback that took ``counters.notable_ns`` or longer. Return when the next one starts.

    Only a slow iteration reports what it was spent on, and a name costs 50 us and more. So the callbacks of an
    iteration's first eighth of the threshold get none, nor does the ``last`` one before half of it.
    """
    spent_ns, slow_ns = end_ns - start_ns, counters.slow_ns
    if (
        end_ns - began_ns < counters.slow_iteration_ns >> (1 if last else 3)
        and spent_ns < slow_ns
        and start_ns - ready_ns < slow_ns
    ):
        if not last:
            self._obsloop.profile.of(began_ns).add_unnamed(spent_ns)
        return end_ns
    guarded(self._obsloop.slow_callback, self, counters, handle, kind, ready_ns, start_ns, end_ns, began_ns)
    return clock.monotonic_ns()


def slow_iteration(self: Any, counters: Counters, began_ns: int, end_ns: int) -> int:
    """Report an iteration that took ``counters.slow_iteration_ns`` or longer. Return when the next poll starts."""
    guarded(self._obsloop.slow_iteration, self, counters, began_ns, end_ns)
    return clock.monotonic_ns()


def in_chunks(self: Any, counters: Counters, todo: int, began_ns: int) -> Iterable[int]:
    """Return ``range(todo)`` for a large batch, which checks after each chunk how long the iteration has taken."""
    return chain.from_iterable(_chunks(self, counters, todo, began_ns))


def _chunks(self: Any, counters: Counters, todo: int, began_ns: int) -> Iterator[range]:
    while todo > CHUNK:
        yield _CHUNK_RANGE
        todo -= CHUNK
        if counters.tick_ns - began_ns >= counters.slow_iteration_ns >> 1:
            sample(self, counters, began_ns, self._ready[0])
    yield range(todo)


def sample(self: Any, counters: Counters, began_ns: int, handle: Any) -> None:
    """Name ``handle``, which is next, for the next chunk: the iteration becomes a slow one of many callbacks."""
    guarded(self._obsloop.sample, self, counters, began_ns, handle, CHUNK)
