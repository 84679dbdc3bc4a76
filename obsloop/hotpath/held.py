"""What a look from another thread held of the program's objects, until the loop's thread drops it.

While the watchdog reads the name of a handle it has a reference to it. If the loop lets go of the handle meanwhile,
that is the last one, and finalizers of the program would run in the watchdog's thread. So a look adds each object to a
list first, and hands the list over when it has no other reference left.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.metrics.counters import IN_CALLBACK, IN_OVERHEAD

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters


MOST = 64
"""So many looks leave something in one iteration; there are no further ones before its end."""


class Held(NamedTuple):
    """What one look held."""

    at_ns: int
    things: list[Any]

    def context(self) -> Context | None:
        """The copy of the context that was current, if the look has made one."""
        contexts: list[Context] = [thing for thing in self.things if type(thing) is Context]
        return contexts[0] if contexts else None


def hand_over(loop: Any, began_ns: int, at_ns: int, things: list[Any]) -> None:
    """Leave ``things`` to the thread of ``loop``, which drops them at the end of the present iteration.

    ``began_ns`` is when the iteration began that the look was at. The caller has no other reference to the things.
    """
    obs = loop._obsloop
    counters: Counters | None = obs.counters
    if not any(thing is not None for thing in things):
        return
    obs.held.append(Held(at_ns, things))
    if counters is None:  # it was closed meanwhile
        return
    _have_it_reported(counters)
    if counters.began_ns != began_ns or counters.state not in (IN_CALLBACK, IN_OVERHEAD):
        wake(loop)


def full(obs: Any) -> bool:
    """Whether a further look has to wait for the end of the iteration. Then the loop reports that end."""
    if len(obs.held) < MOST:
        return False
    _have_it_reported(obs.counters)
    return True


def wake(loop: Any) -> None:
    """Have ``loop`` go through another iteration: it has finished the one that was looked at, and may wait for long."""
    _have_it_reported(loop._obsloop.counters)
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(_nothing)


def _have_it_reported(counters: Counters | None) -> None:
    """Have the loop report the end of its iteration, however short it is. A new threshold would undo it."""
    if counters is not None:
        counters.slow_iteration_ns = 0


def drop(obs: Any) -> None:
    """Drop what looks have handed over; in the loop's thread."""
    while obs.held:
        obs.held.popleft().things.clear()


def context_since(obs: Any, started_ns: int) -> Context | None:
    """The copy of the context that the last look since ``started_ns`` has made; in the loop's thread."""
    contexts = [look.context() for look in obs.held.copy() if look.at_ns >= started_ns]
    return next((context for context in reversed(contexts) if context is not None), None)


def _nothing() -> None:
    pass
