"""Keep the program's garbage out of obsloop's threads.

Python collects garbage in the thread whose allocation is one too many. If that is a thread of obsloop's, finalizers of
the program's run there: the ``finally`` of an abandoned coroutine, the ``__del__`` of a connection. So while such a
thread walks over tasks it sets the collector's first threshold to 0, which starts no collection, and puts it back.

The threshold, and not ``gc.disable()``: the program may call ``gc.isenabled()``, ``gc.disable()`` and ``gc.enable()``
at the same time, and each has its effect. A threshold that the program sets meanwhile stays. ``gc.collect()`` works.
A collection that became due meanwhile starts with the next allocation after ``let_go``, whichever thread makes it.
This holds off the program's collections, too, so it may last for a few milliseconds only, and no code of the program's
that can wait may run meanwhile: call ``let_go`` before it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from threading import get_ident
from time import sleep
from typing import TypeVar

from obsloop.base.clock import REAL as monotonic_ns
from obsloop.base.fork import reset_in_child

SLICE_NS = 1_000_000
"""After so long the collector is on again, and other threads get the GIL. Python's own limit is 5 ms."""
_BREATH_SECONDS = 50e-6

_T = TypeVar("_T")

_holders: dict[int, int] = {}
"""The threads that hold off the collector, and how many ``with`` blocks each of them is in."""
_before: tuple[int, ...] = ()
"""The thresholds that the last of them will put back; empty where there are none to put back."""


def hold() -> None:
    """Start no collection from here on, in any thread, until ``let_go``."""
    global _before  # noqa: PLW0603 - there is one collector
    if not _holders:
        # The tuple of thresholds is an allocation, which may be the one too many: after `breathe` it mostly is.
        enabled = gc.isenabled()
        gc.disable()
        before = gc.get_threshold()
        if before[0] > 0:  # else the program has switched the collector off in this way
            _before = before
            gc.set_threshold(0)
        if enabled:
            gc.enable()
    ident = get_ident()
    _holders[ident] = _holders.get(ident, 0) + 1


def let_go() -> None:
    """Let collections start again, when no other thread holds them off.

    The end of a ``with`` block then does nothing.
    """
    _holders.pop(get_ident(), None)
    if not _holders:
        _put_back()


class _Held:
    """A context manager: no collection starts within it, until ``let_go`` is called. It may be entered again within."""

    __slots__ = ()

    def __enter__(self) -> None:
        hold()

    def __exit__(self, *_: object) -> None:
        ident = get_ident()
        depth = _holders.get(ident, 0)
        if depth > 1:
            _holders[ident] = depth - 1
        elif depth:
            let_go()


held = _Held()


def breathing(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the same items, and let other threads run, and collect, after each millisecond."""
    until_ns = monotonic_ns() + SLICE_NS
    for item in items:
        yield item
        if monotonic_ns() >= until_ns:
            breathe()
            until_ns = monotonic_ns() + SLICE_NS


def breathe() -> None:
    """Let other threads run, and collect."""
    depth = _holders.get(get_ident(), 0)
    let_go()
    sleep(_BREATH_SECONDS)
    if depth:
        hold()
        _holders[get_ident()] = depth


def _put_back() -> None:
    global _before
    before, _before = _before, ()
    if before and gc.get_threshold()[0] == 0:  # else the program has set another one
        gc.set_threshold(*before)


@reset_in_child
def _after_fork_in_child() -> None:
    _holders.clear()  # threads that are not here
    _put_back()
