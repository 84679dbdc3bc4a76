"""Which core times the loop: chosen once, when obsloop is imported. Both behave the same and pass every test.

The compiled core, ``hotpath.compiled``, is there where the package was built with a compiler. ``OBSLOOP_PURE=1``
switches it off. On an interpreter that ``base.asyncio_check`` does not know there is neither, and ``loop.fallback`` is
used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from types import CodeType
from typing import Any

from obsloop.base import asyncio_check, clock
from obsloop.metrics.counters import make_counters_by

lacking: list[str] = asyncio_check.missing()
"""What the interpreter lacks of what a core needs; empty where all is as known."""


def _load_compiled() -> Any:
    """The compiled core, or None where it was not built or cannot be loaded (a subinterpreter, say)."""
    try:
        return import_module("obsloop.hotpath.compiled.core")
    except ImportError:
        return None


_pure: Any = None if lacking else import_module("obsloop.hotpath.pure")
_compiled: Any = None if lacking or os.environ.get("OBSLOOP_PURE") else _load_compiled()

_chosen: Any = _compiled or _pure

name = "compiled" if _compiled else "pure"
Handle: Any = _chosen.Handle if _chosen else None
METHODS: dict[str, Any] = _chosen.METHODS if _chosen else {}
_wire: Any = _compiled or (import_module("obsloop.hotpath.pure.socket_io") if _pure else None)
TransportStats: Any = _wire.TransportStats if _wire else None
TRANSPORT_METHODS: dict[str, Any] = _wire.TRANSPORT_METHODS if _wire else {}
run_once: Any = METHODS.get("_run_once")
if _compiled:
    make_counters_by(_compiled.Counters)
compiled_wakeup: Any = _compiled.Wakeup if _compiled and _compiled.Wakeup.looks else None
"""What the watchdog sleeps on where the compiled core looks at loops without the GIL; see ``wakeup.Wakeup``."""


def forget() -> None:
    """A loop is being made or closed: the compiled core must not take a new loop for an old one at its address."""
    if _compiled:
        _compiled.forget()


def new_task_table(loop: Any) -> Any:
    """What counts the tasks of ``loop``; None on an interpreter without a core."""
    if _compiled:
        return _compiled.task_table_of(loop)
    return _pure.new_task_table() if _pure else None


def adopt(loop: Any, cls: type) -> None:
    """Make ``loop``, which may run already, a loop of ``cls``."""
    if _compiled:
        _compiled.adopt(loop, cls)
    else:
        loop.__class__ = cls


ITERATION: CodeType | None = run_once.__code__ if _chosen is _pure and _pure else None
"""The code that runs an iteration of the pure core: ``running_handle`` needs the frames that run it."""


def running_handle(loop: Any, iterations: list[Any], kept: list[Any]) -> Any:
    """The handle that ``loop`` runs at this moment, or None; from any thread. ``iterations`` are its thread's frames
    that run ``ITERATION``. The handle is added to ``kept``, which the loop's thread has to drop.
    """
    if _compiled:
        handle = _compiled.running_handle(loop)
        kept.append(handle)
        return handle
    return _pure.handle_in(iterations, loop, kept) if _pure else None


def own_handle(loop: Any, frame: Any) -> Any:
    """The handle that ``loop`` runs at this moment, or None; in its own thread, which has come to ``frame`` in it."""
    if _compiled:
        return _compiled.running_handle(loop)
    return _pure.running_handle(loop, frame) if _pure else None


def queue(loop: Any) -> Any:
    """What is ready to run, next first: for the loop's own thread, to be looked at and not to be kept or changed."""
    return _compiled.queue(loop) if _compiled else loop._ready


def is_step(callback: Any) -> bool:
    """Whether this is the callback with which a task of asyncio's C code schedules its own step."""
    return _pure is not None and type(callback) is _pure.STEP


def set_clock(monotonic_ns: Callable[[], int]) -> None:
    """Another clock for the whole process, for tests."""
    clock.monotonic_ns = monotonic_ns
    if _pure:
        _pure.set_clock(monotonic_ns)
    if _compiled:
        _compiled.set_clock(monotonic_ns)


def set_recording(on: bool) -> None:
    """Switch timing and counting on or off, for the benchmark of what they cost; the compiled core only."""
    if not _compiled:
        raise RuntimeError("only the compiled core can switch its recording off")
    _compiled.set_recording(on)
