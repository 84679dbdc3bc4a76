"""Keep the program's finalizers out of obsloop's threads.

Python collects garbage in the thread whose allocation exceeds the threshold. If that is one of obsloop's threads, the
program's finalizers run there: the ``finally`` of an abandoned coroutine, the ``__del__`` of a connection. So while
such a thread walks over tasks, it sets the collector's first threshold to 0, which starts no collection, and then
restores it.

It does not use ``gc.disable()``, because the program may call ``gc.isenabled()``, ``gc.disable()`` and ``gc.enable()``
at the same time, and each must have its effect. A threshold that the program sets meanwhile stays. ``gc.collect()``
works. A collection that became due meanwhile starts with the next allocation after ``let_go``, in any thread.
The program's own collections are held off, too. So this may last a few milliseconds only, and no code of the program
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
"""After this time, collections may start again and other threads get the GIL. Python's own limit is 5 ms."""
_BREATH_SECONDS = 50e-6

_T = TypeVar("_T")

_holders: dict[int, int] = {}
"""The threads that hold off the collector, each with the number of ``with`` blocks that it is in."""
_before: tuple[int, ...] = ()
"""The thresholds that the last of these threads will restore; empty if there are none to restore."""


def hold() -> None:
    """Let no collection start, in any thread, until ``let_go``."""
    ident = get_ident()
    _holders[ident] = _holders.get(ident, 0) + 1  # first, so that another thread's `let_go` sees it
    _take_away()


def let_go() -> None:
    """Let collections start again, unless another thread holds them off.

    The end of this thread's ``with`` blocks then does nothing.
    """
    _holders.pop(get_ident(), None)
    if not _holders:
        _put_back()
        if _holders:  # another thread has come in between, and saw them taken away
            _take_away()


class _Held:
    """A context manager in which no collection starts, until ``let_go`` is called. It may be nested."""

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
    """Yield the same items. After each millisecond, let other threads run and collections start."""
    until_ns = monotonic_ns() + SLICE_NS
    for item in items:
        yield item
        if monotonic_ns() >= until_ns:
            breathe()
            until_ns = monotonic_ns() + SLICE_NS


def breathe() -> None:
    """Let other threads run and collections start."""
    depth = _holders.get(get_ident(), 0)
    let_go()
    sleep(_BREATH_SECONDS)
    if depth:
        hold()
        _holders[get_ident()] = depth


def _take_away() -> None:
    global _before  # noqa: PLW0603 - there is one collector
    # The tuple of thresholds is an allocation, which may start a collection. After `breathe` it mostly would.
    enabled = gc.isenabled()
    gc.disable()
    before = gc.get_threshold()
    if before[0] > 0:  # else another thread has taken them away, or the program itself has set it to 0
        _before = before
        gc.set_threshold(0)
    if enabled:
        gc.enable()


def _put_back() -> None:
    global _before
    before, _before = _before, ()
    if before and gc.get_threshold()[0] == 0:  # else the program has set another threshold
        gc.set_threshold(*before)


@reset_in_child
def _after_fork_in_child() -> None:
    _holders.clear()  # the child does not have these threads
    _put_back()
