"""Which core times the loop: chosen once, when obsloop is imported. Both behave the same and pass every test.

The compiled core, ``hotpath.compiled``, exists where the package was built with a compiler. ``OBSLOOP_PURE=1`` switches
it off. An interpreter that ``base.asyncio_check`` does not know gets neither core, but ``loop.fallback``.
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
"""What a core needs and the interpreter lacks; empty on a known interpreter."""


def _load_compiled() -> Any:
    """Return the compiled core, or None if it was not built or cannot be loaded (in a subinterpreter, say)."""
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
DATAGRAM_METHODS: dict[str, Any] = _wire.DATAGRAM_METHODS if _wire else {}
run_once: Any = METHODS.get("_run_once")
if _compiled:
    make_counters_by(_compiled.Counters)
compiled_wakeup: Any = _compiled.Wakeup if _compiled and _compiled.Wakeup.looks else None
"""What the watchdog sleeps on if the compiled core can read loops without the GIL; see ``wakeup.Wakeup``."""


def load_libuv_hooks() -> Any:
    """Return the class that times the iterations of an observed uvloop loop; None on an unknown asyncio.

    The pure core's needs ``ctypes``, which few programs have, and which isolated interpreters of 3.12 refuse to load.
    """
    if _compiled:
        return _compiled.LibuvHooks
    return import_module("obsloop.hotpath.pure.libuv_hooks").LibuvHooks if _pure else None


def forget() -> None:
    """Let the compiled core forget its last loop. Called when a loop is made or closed: addresses are used again."""
    if _compiled:
        _compiled.forget()


def wake_once(loop: Any) -> None:
    """Let calls of ``loop.call_soon_threadsafe`` share one write to the loop's own pipe."""
    _chosen.wake_once(loop)


def new_task_table(loop: Any) -> Any:
    """Return what counts the tasks of ``loop``; None on an interpreter without a core."""
    if _compiled:
        return _compiled.task_table_of(loop)
    return _pure.new_task_table() if _pure else None


def adopt(loop: Any, cls: type) -> None:
    """Make ``loop``, which may be running, a loop of ``cls``."""
    if _compiled:
        _compiled.adopt(loop, cls)
    else:
        loop.__class__ = cls


ITERATION: CodeType | None = run_once.__code__ if _chosen is _pure and _pure else None
"""The code that runs an iteration of the pure core: ``running_handle`` needs the frames that run it."""


def running_handle(loop: Any, iterations: list[Any], kept: list[Any]) -> Any:
    """Return the handle that ``loop`` runs at this moment, or None, from any thread.

    ``iterations`` are its thread's frames that run ``ITERATION``. The handle is added to ``kept``, which the loop's
    thread has to drop.
    """
    if _compiled:
        handle = _compiled.running_handle(loop)
        kept.append(handle)
        return handle
    return _pure.handle_in(iterations, loop, kept) if _pure else None


def own_handle(loop: Any, frame: Any) -> Any:
    """Return the handle that ``loop`` runs at this moment, or None. Call it in its own thread, from ``frame``."""
    if _compiled:
        return _compiled.running_handle(loop)
    return _pure.running_handle(loop, frame) if _pure else None


def queue(loop: Any) -> Any:
    """Return the handles that are ready, next first. In the loop's thread only; do not keep or change them."""
    return _compiled.queue(loop) if _compiled else loop._ready


def is_step(callback: Any) -> bool:
    """Return whether this is the callback with which a task of asyncio's C code schedules its own step."""
    return _pure is not None and type(callback) is _pure.STEP


def set_clock(monotonic_ns: Callable[[], int]) -> None:
    """Replace the clock of the whole process, for tests."""
    clock.monotonic_ns = monotonic_ns
    if _pure:
        _pure.set_clock(monotonic_ns)
    if _compiled:
        _compiled.set_clock(monotonic_ns)
