"""Subprocesses that the loop started: how many there are, how long they lived, and how they ended.

A child lives from just before it is forked until the child watcher, whichever it is, has reaped it. Its end is the
first time at which the loop could have known of it: when the handle that reaps it became ready. If the loop was busy
then, the watchdog may have seen the end earlier: with each sample of a blocked loop it asks the kernel which children
have ended. That takes no descriptor and no thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.clock import epoch
from obsloop.base.guarded import guarded
from obsloop.events import SubprocessExit
from obsloop.hotpath import backend
from obsloop.instruments import emit, has_listeners
from obsloop.introspect.attributes import clean

if TYPE_CHECKING:
    from types import FrameType

    from obsloop.metrics.snapshot import Value


class Processes:
    """The children of one loop."""

    __slots__ = ("live", "starting")

    MOST = 64
    """The watchdog checks whether so many children of a loop, the oldest, have ended."""

    def __init__(self) -> None:
        self.live: dict[Child, None] = {}
        self.starting: Child | None = None
        """The child that is about to be forked. Nothing else runs from here until it is watched."""

    def look(self) -> None:
        """Note which children have ended by now, without reaping them. In the watchdog's thread."""
        alive = [child for child in list(self.live) if child.pid and not child.ended_ns]
        for child in alive[: self.MOST]:
            with suppress(OSError):  # the loop has already reaped it
                if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                    child.ended_ns = clock.monotonic_ns()


class Child:
    """One child. Its watcher calls ``on_exit`` in place of the loop's own method."""

    __slots__ = ("callback", "context", "ended_ns", "loop", "pid", "program", "started_ns")

    def __init__(self, loop: Any, program: str) -> None:
        self.loop, self.program = loop, program
        self.callback: Any = None
        self.pid = 0
        self.ended_ns = 0
        """When the watchdog saw that it had ended; 0 if it did not."""
        self.context = copy_context()
        self.started_ns = clock.monotonic_ns()

    def on_exit(self, pid: int, returncode: int, transport: Any) -> None:
        """Count the child, which has been reaped, and go on as asyncio does."""
        try:
            guarded(_count, self, pid, returncode, transport)
        finally:  # even if a hook ends the program: its last steps may wait for the child
            self.callback(pid, returncode, transport)


def start(loop: Any, args: Any, shell: bool, executable: Any) -> None:
    """Note a child that is about to be forked, with ``args`` as Popen takes them. Keep only the program's base name."""
    guarded(_start, loop, args, shell, executable)


def watcher_callback(loop: Any, callback: Any, asker: FrameType) -> Any:
    """Return what the watcher of the child that was just forked is to call; if none was, asyncio's ``callback``.

    ``asker`` is the frame of asyncio that asks. It has the transport, which asyncio does not pass on.
    """
    children: Processes = loop._obsloop.processes
    child, children.starting = children.starting, None
    if child is None:
        return callback
    child.callback = callback
    children.live[child] = None
    guarded(_learn_pid, child, asker)
    return child.on_exit


def collect(loops: Iterable[Any]) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return the number of children of these loops that have not been reaped."""
    return {"asyncio.subprocess.active": {(): sum(len(loop._obsloop.processes.live) for loop in loops)}}


def _learn_pid(child: Child, asker: FrameType) -> None:
    transport: Any = asker.f_locals.get("transp")
    pid = None if transport is None else transport.get_pid()
    if isinstance(pid, int) and hasattr(os, "waitid"):
        child.pid = pid


def _heard_ns(loop: Any) -> int:
    """Return when the handle that runs now, and reaps a child, became ready; 0 if unknown."""
    handle = backend.own_handle(loop, sys._getframe())
    return 0 if handle is None else loop._obsloop.marks_of_running(handle)[1]


def _start(loop: Any, args: Any, shell: bool, executable: Any) -> None:
    program = executable if executable is not None else "sh" if shell else args
    if isinstance(program, (list, tuple)):
        program = program[0]  # pyright: ignore[reportUnknownVariableType]
    name = os.path.basename(os.fsdecode(program))  # pyright: ignore[reportUnknownArgumentType]
    loop._obsloop.processes.starting = Child(loop, clean(name))


def _count(child: Child, pid: int, returncode: int, transport: Any) -> None:
    ended_ns = clock.monotonic_ns()
    obs = child.loop._obsloop
    obs.processes.live.pop(child, None)
    # If the transport has reaped it, the watcher came too late and reports 255.
    known = getattr(getattr(transport, "_proc", None), "returncode", None)
    returncode = known if isinstance(known, int) else returncode
    how = "ok" if returncode == 0 else "signal" if returncode < 0 else "error"
    metrics = obs.metrics_of(child.loop)
    metrics.labelled.time("asyncio.subprocess.duration", ended_ns - child.started_ns, how)
    heard_ns = _heard_ns(child.loop)
    known_ns = [ns for ns in (child.ended_ns, heard_ns) if ns]
    delay_ns = None
    if known_ns:
        delay_ns = max(0, ended_ns - min(known_ns))
        metrics.labelled.time("asyncio.subprocess.reap.delay", delay_ns)
    if has_listeners(obs.instruments, "on_subprocess_exit"):
        event = SubprocessExit(
            loop_name=metrics.name,
            kind="other",
            name=child.program,
            filename="",
            lineno=0,
            duration=(ended_ns - child.started_ns) / 1e9,
            schedule_delay=0.0,
            started_at=epoch(child.started_ns),
            pid=pid,
            returncode=returncode,
            exit=how,
            reap_delay=None if delay_ns is None else delay_ns / 1e9,
            context=child.context,
        )
        emit(obs.instruments, "on_subprocess_exit", event)
