"""What a sample from another thread holds of the program's objects, until the loop's thread drops it.

While the watchdog reads the name of a handle, it holds a reference to it. If the loop drops the handle meanwhile, that
reference is the last, and the program's finalizers would run in the watchdog's thread. So a sample first adds each
object to a list, and hands the list over when it has no other reference left.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.metrics.counters import IN_CALLBACK, IN_OVERHEAD

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters


MOST = 64
"""So many samples may leave something in one iteration. No more are taken before its end."""


class Held(NamedTuple):
    """What one sample held."""

    at_ns: int
    things: list[Any]

    def context(self) -> Context | None:
        """Return the copy that the sample made of the current context, or None."""
        contexts: list[Context] = [thing for thing in self.things if type(thing) is Context]
        return contexts[0] if contexts else None


def hand_over(loop: Any, began_ns: int, at_ns: int, things: list[Any]) -> None:
    """Leave ``things`` to the thread of ``loop``, which drops them at the end of the present iteration.

    ``began_ns`` is when the sampled iteration began. The caller must hold no other reference to the things.
    """
    obs = loop._obsloop
    counters: Counters | None = obs.counters
    if not any(thing is not None for thing in things):
        return
    obs.held.append(Held(at_ns, things))
    if counters is None:  # the loop was closed meanwhile
        return
    _have_it_reported(counters)
    if counters.began_ns != began_ns or counters.state not in (IN_CALLBACK, IN_OVERHEAD):
        wake(loop)


def full(obs: Any) -> bool:
    """Return whether the next sample must wait for the end of the iteration. If so, have the loop report that end."""
    if len(obs.held) < MOST:
        return False
    _have_it_reported(obs.counters)
    return True


def wake(loop: Any) -> None:
    """Make ``loop`` go through another iteration: it has finished the sampled one, and may wait for long."""
    _have_it_reported(loop._obsloop.counters)
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(_nothing)


def _have_it_reported(counters: Counters | None) -> None:
    """Have the loop report the end of its iteration, however short it is. A new threshold would undo it."""
    if counters is not None:
        counters.slow_iteration_ns = 0


def drop(obs: Any) -> None:
    """Drop what samples have handed over. In the loop's thread."""
    while obs.held:
        obs.held.popleft().things.clear()


def context_since(obs: Any, started_ns: int) -> Context | None:
    """Return the context copied by the last sample since ``started_ns``, or None. In the loop's thread."""
    contexts = [look.context() for look in obs.held.copy() if look.at_ns >= started_ns]
    return next((context for context in reversed(contexts) if context is not None), None)


def _nothing() -> None:
    pass
