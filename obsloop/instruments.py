"""Who listens to what: instruments are added and removed, and one that raises is disabled.

A hook is looked up once, when its instrument is added. The table of a hook is a tuple that is replaced and never
changed, so that hooks may add and remove instruments while they are called, from any thread.
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
    """Base class of instruments; every hook is optional, and a class that does not derive from it will do as well.

    ``loop.add_instrument(x)`` adds one to a loop, ``obsloop.add_instrument(x)`` to every loop of the process. Hooks are
    plain functions and get one event each. They run inside the loop, or the watchdog, and should be quick. One that
    raises, whatever it is, is logged on the logger ``obsloop``, counted, and not called again. ``SystemExit`` and
    ``KeyboardInterrupt`` then go on, but not in the watchdog's thread: they end the program, as in any callback.
    """

    def on_slow_callback(self, event: SlowCallback) -> None:
        """A callback took ``loop.slow_callback_duration`` or longer. In the loop's thread, after it returned."""

    def on_slow_iteration(self, event: SlowIteration) -> None:
        """The callbacks of one iteration together took too long. In the loop's thread, after the last of them."""

    def on_loop_blocked(self, event: LoopBlocked) -> None:
        """The loop is blocked, and still is. In the watchdog's thread, at first sight."""

    def on_loop_unblocked(self, event: LoopUnblocked) -> None:
        """The loop moved on. In the watchdog's thread."""

    def on_callback_error(self, event: CallbackError) -> None:
        """The loop's exception handler was called. In the thread that called it, before the program's handler."""

    def on_task_done(self, event: TaskDone) -> None:
        """A task has failed, or took long from its creation to its end. In the loop's thread, after its last step."""

    def on_executor_job(self, event: ExecutorJob) -> None:
        """An executor's job has ended and its result is on the loop. In the loop's thread, after it was delivered."""

    def on_connection_set_up(self, event: ConnectionSetUp) -> None:
        """A connection is set up, or has failed. In the loop's thread, before who asked for it hears of it."""

    def on_transport_closed(self, event: TransportClosed) -> None:
        """A transport is closed. In the loop's thread, after ``connection_lost``."""

    def on_subprocess_exit(self, event: SubprocessExit) -> None:
        """A subprocess was reaped. In the loop's thread, before its protocol or who waits for it hears of it."""

    def on_task_lint(self, event: TaskLint) -> None:
        """Something is wrong with a task. In the watchdog's thread, or in that which let go of a failed task."""


HOOKS = tuple(name for name in vars(Instrument) if name.startswith("on_"))
"""The names of the hooks, in the order of ``Instrument``."""

disabled: dict[str, int] = dict.fromkeys(HOOKS, 0)
"""How many hooks were disabled because they raised, by hook."""

_Entry = tuple[Any, Callable[[Any], object]]
_lock = threading.RLock()


class Instruments:
    """The instruments of one loop, or of the process; one attribute per hook holds those who have it."""

    __slots__ = ("_added", *HOOKS)

    def __init__(self) -> None:
        self._added: tuple[Any, ...] = ()
        for hook in HOOKS:
            setattr(self, hook, ())

    def add(self, instrument: Any) -> None:
        """Call the hooks of ``instrument`` from now on; twice is once. Raises ``TypeError`` where it has none."""
        hooks = _hooks_of(instrument)
        with _lock:
            if any(instrument is other for other in self._added):
                return
            self._added = (*self._added, instrument)
            for hook, function in hooks.items():
                setattr(self, hook, (*getattr(self, hook), (instrument, function)))

    def remove(self, instrument: Any) -> None:
        """Call them no more. Raises ``ValueError`` where it was not added."""
        with _lock:
            if not any(instrument is other for other in self._added):
                raise ValueError(f"{_described(instrument)} is not an instrument here: it was not added, or is removed")
            self._added = tuple(other for other in self._added if other is not instrument)
            for hook in HOOKS:
                self._take_out(hook, instrument)

    def emit(self, hook: str, event: Any) -> None:
        """Give ``event`` to all who have ``hook``; one that raises is disabled, counted and logged."""
        entries: tuple[_Entry, ...] = getattr(self, hook)
        end: BaseException | None = None
        for instrument, function in entries:
            try:
                function(event)
            except BaseException as error:
                if goes_on(error):
                    end = error  # when the others have the event
                try:
                    self._disable(hook, instrument)
                except BaseException as another:  # a logging handler of the program's ends it
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
        with harmless:  # a logging handler of the program's may raise
            _log.exception("%s of the instrument %s raised and is disabled", hook, printable(_described(instrument)))

    def _take_out(self, hook: str, instrument: Any) -> None:
        entries: tuple[_Entry, ...] = getattr(self, hook)
        setattr(self, hook, tuple(entry for entry in entries if entry[0] is not instrument))


def _hooks_of(instrument: Any) -> dict[str, Callable[[Any], object]]:
    """The hooks that ``instrument`` really has: what it inherits from ``Instrument`` unchanged does nothing."""
    if isinstance(instrument, type):
        raise TypeError(f"expected an instrument, got the class {instrument.__qualname__}: give an instance of it")
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
"""Those of every loop of the process."""


def has_listeners(instruments: Instruments, hook: str) -> bool:
    """Whether anybody listens, to the loop or to the process: for events that are not worth making for nobody."""
    return bool(getattr(instruments, hook) or getattr(process, hook))


def emit(instruments: Instruments, hook: str, event: Any) -> None:
    """Give ``event`` to the loop's own ``instruments`` and to the process's."""
    try:
        instruments.emit(hook, event)
    finally:
        process.emit(hook, event)


def add_instrument(instrument: Any) -> None:
    """Call the hooks of ``instrument`` for every loop of this process, present and future; twice is once.

    Hooks are the methods named in ``Instrument``. Raises ``TypeError`` where it has none of them.
    """
    process.add(instrument)


def remove_instrument(instrument: Any) -> None:
    """Call them no more. Raises ``ValueError`` for an instrument that was not added with ``add_instrument``."""
    process.remove(instrument)


@reset_in_child
def forked() -> None:
    """Start counting from nothing in a forked child; instruments stay."""
    global _lock  # noqa: PLW0603 - the old one may be held by a thread that is gone
    _lock = threading.RLock()
    disabled.update(dict.fromkeys(disabled, 0))
