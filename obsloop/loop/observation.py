"""What one loop carries of ours: its settings, the counters it writes, and the marks of handles that are not ours.

``Observed`` is what every kind of observed loop has in common beside its timing.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from obsloop import service
from obsloop.base.asyncio_private import SelectorEventLoop
from obsloop.base.settings import Settings, tidy_name
from obsloop.blocking import slow, watchdog
from obsloop.blocking.slow import IterationProfile
from obsloop.hotpath import backend, marks as _marks
from obsloop.hotpath.held import Held, drop
from obsloop.instruments import Instruments
from obsloop.loop import exceptions
from obsloop.metrics import registry
from obsloop.metrics.counters import NEVER_NS, OTHER
from obsloop.probes import gc as gc_probe, tasks as task_probe
from obsloop.probes.collect import snapshot_of
from obsloop.probes.network.servers import Servers
from obsloop.probes.processes import Processes

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters
    from obsloop.metrics.snapshot import Snapshot
    from obsloop.probes.executor_pools import Pool
    from obsloop.probes.network.connections import Setup


class Observation:
    """Held by the loop as ``_obsloop``: one attribute, since with a few more a loop's look-ups would slow down."""

    __slots__ = (
        "accepted_fd",
        "counters",
        "episode",
        "exception_handler",
        "executors",
        "foreign",
        "held",
        "instruments",
        "iterating",
        "metrics",
        "processes",
        "profile",
        "sending",
        "servers",
        "settings",
        "setup",
        "slow_ns",
        "tasks",
        "unstamped",
        "usage",
    )

    # What the hot path reports upwards (see `hotpath.observer`): it imports none of these modules.
    slow_callback = staticmethod(slow.callback)
    slow_iteration = staticmethod(slow.iteration)
    sample = staticmethod(slow.sample)
    task_done = staticmethod(task_probe.done)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.instruments = Instruments()
        self.exception_handler: Any = None
        """The program's own, behind ours."""
        self.executors: dict[int, Pool] = {}
        """The executors that the loop has handed jobs to, by ``id``."""
        self.processes = Processes()
        self.servers = Servers()
        self.setup: Setup | None = None
        """The connection that is being set up, handed to what asyncio calls next and takes it from here."""
        self.accepted_fd = -1
        """A socket that somebody else has accepted, while a transport is made for it."""
        self.sending: dict[int, list[Any]] = {}
        """By ``id`` of a socket that sends a file: its transport's stats, and what has been counted of the file."""
        self.slow_ns = NEVER_NS
        """``loop.slow_callback_duration`` in nanoseconds."""
        self.profile = IterationProfile()
        self.tasks: Any = None
        """The core's table of the loop's tasks; None where there is no core."""
        self.episode: Any = None
        """The watchdog's, while it sees the loop blocked."""
        self.held: deque[Held] = deque()
        """The watchdog's: what its looks held, for the loop's thread to drop."""
        self.usage: Any = None
        """The watchdog's: what the loop's thread had used when it was last looked at."""
        self.counters: Counters | None = None
        self.metrics: registry.LoopMetrics | None = None
        self.iterating = False
        """Whether ``run_once`` is called by our ``run_forever`` and may go on until the loop stops."""
        self.foreign: dict[int, tuple[int, int]] = {}
        """``id`` of a ready handle that has no room for marks (asyncio's own class) -> its kind and ready time."""
        self.unstamped = (OTHER, 0)
        """The marks of the last such handle that ran: while it runs, its own."""

    def lease(self, loop: asyncio.AbstractEventLoop) -> Counters:
        """Return the counters of this loop, from the entry of its name.

        The name is settled now, not when the loop is made: many programs make a loop in one thread and run it in
        another.
        """
        if self.counters is None:
            self.metrics, self.counters = registry.lease(self._name(), loop)
            self.set_thresholds()
        return self.counters

    def metrics_of(self, loop: asyncio.AbstractEventLoop) -> registry.LoopMetrics:
        """Return the metrics of this loop's name, which is settled now if the loop has not run yet."""
        if self.metrics is None:
            self.lease(loop)
        assert self.metrics is not None  # noqa: S101 - lease() has just set it
        return self.metrics

    def set_thresholds(self) -> None:
        """From when on this loop's callbacks and iterations are slow."""
        if self.counters is not None:
            self.counters.set_thresholds(self.slow_ns, self.slow_iteration_ns)
            self.counters.slow_task_ns = nanoseconds(self.settings.slow_task)

    @property
    def slow_iteration_ns(self) -> int:
        """From when on an iteration is slow: as the settings say, or as long as a slow callback."""
        seconds = self.settings.slow_iteration
        return min(self.slow_ns if seconds is None else nanoseconds(seconds), _iteration_limit_ns)

    def snapshot(self, loop: asyncio.AbstractEventLoop) -> Snapshot:
        """The figures of this loop's name, which is settled now if the loop has not run yet."""
        return snapshot_of(self.metrics_of(loop))

    def _name(self) -> str:
        thread = threading.current_thread()
        return self.settings.name or ("main" if thread is threading.main_thread() else tidy_name(thread.name))

    def release(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop is closed: its counters go back to the registry."""
        if self.tasks is not None:
            self.tasks.close(self.counters)
        if self.counters is not None:
            self.counters.flows.end()
        if self.metrics is not None:
            self.metrics.release(loop)
        self.counters = None
        self.foreign.clear()
        self.sending.clear()
        self.executors.clear()
        self.processes.live.clear()
        self.servers.forget()
        self.setup = None
        drop(self)

    def forked(self) -> None:
        """In a forked child: the workers that had jobs of this loop are gone, its subprocesses are a stranger's."""
        self.executors.clear()
        self.processes.live.clear()
        self.servers.forget()
        self.setup = None
        self.episode = self.usage = None

    def stamp(self, handle: asyncio.Handle, kind: int, ready_ns: int) -> None:
        """Note a foreign handle's kind and ready time; ``unstamp`` takes it away again when the handle runs."""
        self.foreign[id(handle)] = (kind, ready_ns)

    def unstamp(self, handle: Any, default_ns: int) -> tuple[int, int]:
        """Kind and ready time of a handle of any class; of an unknown one, ``OTHER`` and ``default_ns``."""
        marks = self.foreign.pop(id(handle), None) or _marks.marks(handle) or (OTHER, default_ns)
        self.unstamped = marks
        return marks

    def marks_of_running(self, handle: Any) -> tuple[int, int]:
        """Kind and ready time of the handle that runs at this moment."""
        return _marks.marks(handle) or self.unstamped


class Observed(SelectorEventLoop):
    """The part of an observed loop that does not run per callback."""

    _obsloop: Observation
    # Not in the loop's `__dict__` by hand: who asks for that slows down every look-up of an attribute.
    _obsloop_slow: float

    # asyncio has it as a plain attribute; as a property it takes effect at once and costs nothing per callback.
    @property
    def slow_callback_duration(self) -> float:
        """Seconds after which a callback is slow: asyncio's own attribute, 0.1 by default.

        In debug mode asyncio logs such a callback; in any mode it is counted and given to the instruments.
        """
        return self._obsloop_slow

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds: float) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._obsloop_slow = seconds
        obs: Observation | None = getattr(self, "_obsloop", None)
        if obs is not None:
            obs.slow_ns = nanoseconds(seconds)
            obs.set_thresholds()

    def add_instrument(self, instrument: Any) -> None:
        """Call the hooks of ``instrument`` (see ``obsloop.Instrument``) for this loop from now on; twice is once.

        Raises ``TypeError`` where it has no hook. May be called at any time, from any thread, and from within a hook.
        """
        self._obsloop.instruments.add(instrument)

    def remove_instrument(self, instrument: Any) -> None:
        """Call them no more. Raises ``ValueError`` for an instrument that was not added to this loop."""
        self._obsloop.instruments.remove(instrument)

    def set_exception_handler(self, handler: Any) -> None:
        """Set the handler that is called for errors nobody caught, as on the stock loop; they are counted first."""
        super().set_exception_handler(handler)  # refuses what is not callable
        self._obsloop.exception_handler = handler
        self._exception_handler = exceptions.on_exception

    def get_exception_handler(self) -> Any:
        """The handler that was set, or None."""
        return self._obsloop.exception_handler

    def close(self) -> None:
        """Close the loop, as on the stock loop. Its figures stay, under its name."""
        super().close()
        backend.forget()
        self._obsloop.release(self)
        watchdog.closed()

    def snapshot(self) -> Snapshot:
        """The figures of this loop's name, at this moment; may be called from any thread."""
        return self._obsloop.snapshot(self)


def observe(loop: Any, settings: Settings) -> None:
    """Give ``loop`` what it carries of ours; and start the service, when one is asked for."""
    obs = Observation(settings)
    loop._obsloop_slow = loop.slow_callback_duration
    obs.slow_ns = nanoseconds(loop._obsloop_slow)
    obs.exception_handler, loop._exception_handler = loop._exception_handler, exceptions.on_exception
    obs.tasks = backend.new_task_table(loop)
    loop._obsloop = obs
    _loops.add(loop)
    gc_probe.install()
    if settings.address is not None:
        service.ensure(
            settings.address,
            unhealthy_after=settings.unhealthy_after,
            allowed_hosts=settings.allowed_hosts,
            socket_mode=settings.socket_mode,
        )


def nanoseconds(seconds: Any) -> int:
    """A threshold in nanoseconds; what is no number, or none that can be reached, is never reached."""
    try:
        return int(min(NEVER_NS, max(0, round(seconds * 1e9))))
    except Exception:  # asyncio takes whatever is assigned, and so do we
        return NEVER_NS


_loops: weakref.WeakSet[Any] = weakref.WeakSet()
_iteration_limit_ns = NEVER_NS


def limit_iterations(seconds: float | None) -> None:
    """For tests: iterations of all loops, present and future, are slow at ``seconds`` at the latest; None: no limit."""
    global _iteration_limit_ns  # noqa: PLW0603 - one limit for the whole process
    _iteration_limit_ns = NEVER_NS if seconds is None else nanoseconds(seconds)
    for loop in list(_loops):
        loop._obsloop.set_thresholds()
