"""Add and remove instruments, and call their hooks; a hook that raises is disabled.

An instrument's hooks are looked up once, when it is added. The table of a hook is a tuple, which is replaced and never
changed. So hooks may add and remove instruments while they are called, in any thread.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from obsloop.base import stderr
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import goes_on, harmless
from obsloop.introspect.attributes import class_name, class_of, printable

if TYPE_CHECKING:
    from obsloop.events import (
        CallbackError,
        ConnectionSetUp,
        ExecutorJob,
        LoopBlocked,
        LoopUnblocked,
        SlowCallback,
        SlowIteration,
        SubprocessExit,
        TaskDone,
        TaskLint,
        TransportClosed,
    )

_log = logging.getLogger("obsloop")
stderr.watch(_log)


class Instrument:
    """Base class of instruments. Every hook is optional, and a class that does not derive from it works, too.

    ``loop.add_instrument(x)`` adds one to a loop, ``obsloop.add_instrument(x)`` to every loop of the process. Hooks are
    plain functions and get one event each. They run in the loop's or the watchdog's thread, and should be quick. If a
    hook raises anything, that is logged on the logger ``obsloop`` and counted, and the hook is not called again.
    ``SystemExit`` and ``KeyboardInterrupt`` are then raised again and end the program, as in any callback; not so in
    the watchdog's thread.
    """

    def on_slow_callback(self, event: SlowCallback) -> None:
        """A callback took ``loop.slow_callback_duration`` or longer. In the loop's thread, after it returned."""

    def on_slow_iteration(self, event: SlowIteration) -> None:
        """The callbacks of one iteration together took too long. In the loop's thread, after the last of them."""

    def on_loop_blocked(self, event: LoopBlocked) -> None:
        """The loop is blocked at this moment. In the watchdog's thread, at the first sample."""

    def on_loop_unblocked(self, event: LoopUnblocked) -> None:
        """The loop moved on. In the watchdog's thread."""

    def on_callback_error(self, event: CallbackError) -> None:
        """The loop's exception handler was called. In the thread that called it, before the program's handler."""

    def on_task_done(self, event: TaskDone) -> None:
        """A task has failed, or took long from its creation to its end. In the loop's thread, after its last step."""

    def on_executor_job(self, event: ExecutorJob) -> None:
        """An executor's job has ended and its result is on the loop. In the loop's thread, after it was delivered."""

    def on_connection_set_up(self, event: ConnectionSetUp) -> None:
        """A connection is set up, or has failed. In the loop's thread, before the program gets the result."""

    def on_transport_closed(self, event: TransportClosed) -> None:
        """A transport is closed. In the loop's thread, after ``connection_lost``."""

    def on_subprocess_exit(self, event: SubprocessExit) -> None:
        """A subprocess was reaped. In the loop's thread, before its protocol and the code that waits for it run."""

    def on_task_lint(self, event: TaskLint) -> None:
        """Something is wrong with a task. In the watchdog's thread, or in the thread that dropped a failed task."""


HOOKS = tuple(name for name in vars(Instrument) if name.startswith("on_"))
"""The names of the hooks, in the order of ``Instrument``."""

disabled: dict[str, int] = dict.fromkeys(HOOKS, 0)
"""How many hooks were disabled because they raised, by hook."""

_Entry = tuple[Any, Callable[[Any], object]]
_lock = threading.RLock()


class Instruments:
    """The instruments of one loop, or of the process. One attribute per hook holds the instruments that have it."""

    __slots__ = ("_added", *HOOKS)

    def __init__(self) -> None:
        self._added: tuple[Any, ...] = ()
        for hook in HOOKS:
            setattr(self, hook, ())

    def add(self, instrument: Any) -> None:
        """Register ``instrument``. Registering it again has no effect. Raises ``TypeError`` if it has no hook."""
        hooks = _hooks_of(instrument)
        with _lock:
            if any(instrument is other for other in self._added):
                return
            self._added = (*self._added, instrument)
            for hook, function in hooks.items():
                setattr(self, hook, (*getattr(self, hook), (instrument, function)))

    def remove(self, instrument: Any) -> None:
        """Stop calling its hooks. Raises ``ValueError`` if it was not added."""
        with _lock:
            if not any(instrument is other for other in self._added):
                raise ValueError(
                    f"{_described(instrument)} is not an instrument here: it was not added, or was removed"
                )
            self._added = tuple(other for other in self._added if other is not instrument)
            for hook in HOOKS:
                self._take_out(hook, instrument)

    def emit(self, hook: str, event: Any) -> None:
        """Give ``event`` to every instrument that has ``hook``. A hook that raises is disabled, counted and logged."""
        entries: tuple[_Entry, ...] = getattr(self, hook)
        end: BaseException | None = None
        for instrument, function in entries:
            try:
                function(event)
            except BaseException as error:
                if goes_on(error):
                    end = error  # raised after the other instruments have the event
                try:
                    self._disable(hook, instrument)
                except BaseException as another:  # one of the program's logging handlers ends the program
                    end = another
        if end is not None:
            try:
                raise end
            finally:
                del end  # no cycle through this frame

    def _disable(self, hook: str, instrument: Any) -> None:
        with _lock:
            self._take_out(hook, instrument)
            disabled[hook] += 1
        with harmless:  # one of the program's logging handlers may raise
            _log.exception("%s of the instrument %s raised and is disabled", hook, printable(_described(instrument)))

    def _take_out(self, hook: str, instrument: Any) -> None:
        entries: tuple[_Entry, ...] = getattr(self, hook)
        setattr(self, hook, tuple(entry for entry in entries if entry[0] is not instrument))


def _hooks_of(instrument: Any) -> dict[str, Callable[[Any], object]]:
    """Return the hooks that ``instrument`` defines. Hooks inherited unchanged from ``Instrument`` do nothing."""
    if isinstance(instrument, type):
        raise TypeError(f"expected an instrument, got the class {instrument.__qualname__}: give an instance of it.")
    found: dict[str, Callable[[Any], object]] = {}
    who = _described(instrument)
    for hook in HOOKS:
        function = getattr(instrument, hook, None)
        if function is None or getattr(function, "__func__", None) is getattr(Instrument, hook):
            continue
        if not callable(function):
            raise TypeError(f"{hook} of {who} is not callable: expected a method that takes the event")
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{hook} of {who} is a coroutine function: hooks are called, not awaited")
        found[hook] = function
    unknown = [name for name in dir(instrument) if name.startswith("on_") and name not in HOOKS]
    if not found and (unknown or not isinstance(instrument, Instrument)):
        raise TypeError(f"{who} has no hook to call: expected one or more of {', '.join(HOOKS)}")
    return found


def _described(instrument: Any) -> str:
    return class_name(class_of(instrument))


process = Instruments()
"""The instruments that listen to every loop of the process."""


def has_listeners(instruments: Instruments, hook: str) -> bool:
    """Return whether an instrument of the loop or of the process has ``hook``. If not, the event need not be made."""
    return bool(getattr(instruments, hook) or getattr(process, hook))


def emit(instruments: Instruments, hook: str, event: Any) -> None:
    """Give ``event`` to the loop's own ``instruments`` and to the process's."""
    try:
        instruments.emit(hook, event)
    finally:
        process.emit(hook, event)


def add_instrument(instrument: Any) -> None:
    """Register an instrument for every loop of this process, present and future. Registering it again has no effect.

    Its hooks are the methods that ``Instrument`` has, too. Raises ``TypeError`` if it has none of them.
    """
    process.add(instrument)


def remove_instrument(instrument: Any) -> None:
    """Stop calling the hooks of ``instrument``. Raises ``ValueError`` if ``add_instrument`` did not add it."""
    process.remove(instrument)


@reset_in_child
def forked() -> None:
    """Set the counts to zero in a forked child; instruments stay."""
    global _lock  # noqa: PLW0603 - the old one may be held by a thread that the child does not have
    _lock = threading.RLock()
    disabled.update(dict.fromkeys(disabled, 0))
