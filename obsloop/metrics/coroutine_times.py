"""The time that each coroutine function takes of the loops: numbers for the hot path, names for readers.

A coroutine function, known by its code object, gets a number when its first task is seen. Names are looked up when a
reader takes a snapshot, never on the loop. The size of the program bounds the table, and ``MAX_KNOWN`` does for a
program that makes functions without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import CoroutineType, GeneratorType
from typing import Any

from obsloop.base.fork import reset_in_child
from obsloop.introspect import coroutines, functions
from obsloop.introspect.attributes import class_of, get, text
from obsloop.metrics.catalog import MAX_SITES, OTHER
from obsloop.metrics.self_metrics import dropped
from obsloop.metrics.snapshot import CoroutineTime

MAX_KNOWN = 4096
"""How many coroutine functions have a number of their own. Later ones share one number, and count as dropped."""

UNKNOWN = 0
"""The number of a task whose coroutine function was not looked up yet."""
REST = 1
"""The number that later functions share. It is not 0: the compiled core looks an unknown function up at each step."""

_TASK: Any = asyncio.Task

_numbers: dict[int, int] = {}
"""By the ``id`` of an object in ``_known``, which stays valid because ``_known`` keeps the object."""
_MAX_SHARING = 4096
"""How many ids ``_sharing`` keeps at most: a function counts as dropped again only after so many others."""
_sharing: set[int] = set()
"""The ``id`` of functions that share ``REST`` and were counted as dropped."""
_known: list[tuple[Any, str]] = [(None, OTHER)] * (REST + 1)
"""By number: the code object, or the class if it is no coroutine of Python; and the qualified name."""
_found: dict[int, functions.Site] = dict.fromkeys((UNKNOWN, REST), functions.Site(OTHER, "", 0))


def number_of(coro: Any) -> int:
    """Return the number of the function that made ``coro``; ``REST`` if there are too many functions."""
    key: Any = class_of(coro)
    cls = key
    if cls is CoroutineType:
        key = coro.cr_code
    elif cls is GeneratorType:
        key = coro.gi_code
    number = _numbers.get(id(key))
    if number is None:
        if len(_known) > MAX_KNOWN + REST:
            if id(key) not in _sharing:
                if len(_sharing) >= _MAX_SHARING:
                    _sharing.clear()
                _sharing.add(id(key))
                dropped["coroutine"] += 1
            return REST
        number = len(_known)
        _known.append((key, text(get(coro, "__qualname__")) or ""))
        _numbers[id(key)] = number
    return number


def begun(task: Any) -> bool:
    """Return whether the coroutine of ``task``, whose step is being scheduled, has run before; True if unknown."""
    coro = coroutines.coroutine_of(task)
    cls = class_of(coro)
    if cls is CoroutineType:
        return bool(coro.cr_running or coro.cr_suspended)
    if cls is GeneratorType:
        return bool(coro.gi_running or coro.gi_suspended)
    return True


def number_of_task(task: Any) -> int:
    """Return the number for a task's coroutine; ``REST`` if the task has none any more, like a done eager task."""
    coro = task._coro if type(task) is _TASK else coroutines.coroutine_of(task)
    return REST if coro is None else number_of(coro)


def times(readings: Iterable[Mapping[int, tuple[int, int]]]) -> dict[str, CoroutineTime]:
    """Sum readings of nanoseconds and steps by number; return them by name, longest first.

    Functions of the same name are one.
    """
    sums: dict[str, tuple[int, int, functions.Site]] = {}
    for reading in readings:
        for number, (ns, steps) in reading.items():
            site = _site(number)
            before = sums.get(site.name)
            sums[site.name] = (ns, steps, site) if before is None else (before[0] + ns, before[1] + steps, before[2])
    ranked = sorted(sums.items(), key=lambda entry: entry[1][0], reverse=True)
    return {name: CoroutineTime(ns / 1e9, steps, site.filename, site.lineno) for name, (ns, steps, site) in ranked}


class TopCoroutines:
    """Choose the coroutine functions to show by name: at each reading, the busiest unnamed ones get the free places.

    A place is never given up. If a counter were replaced by a busier one, it would go back, and rates over it would be
    wrong.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def seconds(self, found: Mapping[str, CoroutineTime]) -> dict[tuple[str, ...], float | int]:
        """Return seconds by the name under which they are shown; the sum of the rest is ``_OTHER``."""
        shown: dict[tuple[str, ...], float | int] = {}
        for name, spent in found.items():
            if name not in self._taken and len(self._taken) < MAX_SITES and name != OTHER:
                self._taken.add(name)
            label = (name if name in self._taken else OTHER,)
            shown[label] = shown.get(label, 0.0) + spent.time
        return shown


def _site(number: int) -> functions.Site:
    site = _found.get(number)
    if site is None:
        key, qualname = _known[number]
        site = _found[number] = coroutines.site_of_code(key, qualname)
    return site


@reset_in_child
def forked() -> None:
    """Forget in a forked child which functions were counted as dropped; numbers stay."""
    _sharing.clear()
