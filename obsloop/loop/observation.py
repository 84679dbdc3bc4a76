"""Hold what one loop carries of obsloop: its settings, its counters, and the marks of foreign handles.

``Observed`` is the base of every kind of observed loop: all but the timing.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from obsloop import service
from obsloop.base.asyncio_private import SelectorEventLoop
from obsloop.base.settings import Settings
from obsloop.base.threads import kind_of_thread
from obsloop.blocking import slow, watchdog
from obsloop.blocking.slow import IterationProfile
from obsloop.hotpath import backend, marks as _marks
from obsloop.hotpath.held import Held, drop
from obsloop.instruments import Instruments
from obsloop.introspect.own_code import OwnCode
from obsloop.loop import exceptions
from obsloop.metrics import levels, registry
from obsloop.metrics.counters import NEVER_NS, OTHER
from obsloop.metrics.registry import MAIN
from obsloop.probes import gc as gc_probe, tasks as task_probe
from obsloop.probes.anyio_threads import Waits
from obsloop.probes.collect import snapshot_of
from obsloop.probes.network.servers import Servers
from obsloop.probes.processes import Processes
from obsloop.tasks import lock_places, tracking

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters
    from obsloop.metrics.snapshot import Snapshot
    from obsloop.probes.executor_pools import Pool
    from obsloop.probes.network.connections import Setup


class Observation:
    """What a loop carries, as ``_obsloop``: one attribute, since a few more would slow down the loop's look-ups."""

    __slots__ = (
        "accepted_fd",
        "anyio",
        "counters",
        "episode",
        "exception_handler",
        "executors",
        "foreign",
        "held",
        "instruments",
        "iterating",
        "metrics",
        "own_code",
        "processes",
        "profile",
        "read_buffer",
        "sending",
        "servers",
        "settings",
        "setup",
        "slow_ns",
        "tasks",
        "unstamped",
        "usage",
        "wakes_once",
        "woken",
    )

    # The hot path's reports go through these (see `hotpath.observer`), so that it imports none of the modules.
    slow_callback = staticmethod(slow.callback)
    slow_iteration = staticmethod(slow.iteration)
    sample = staticmethod(slow.sample)
    task_done = staticmethod(task_probe.done)
    partial = False
    """Whether only some of the metrics are measured: see ``metrics.partial``."""
    adopted = False
    """Whether the loop is uvloop's, and ran already when it was observed."""

    def look_into_poll(self, least_ns: int) -> int:
        """Return when the present poll began to call protocols; 0 as asyncio calls them after it."""
        return 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.instruments = Instruments()
        self.own_code = OwnCode(settings.own_packages, settings.foreign_packages)
        self.exception_handler: Any = None
        """The program's own, which obsloop's calls."""
        self.executors: dict[int, Pool] = {}
        """The executors that the loop has handed jobs to, by ``id``."""
        self.anyio = Waits()
        """Since when tasks have waited for anyio's threads."""
        self.processes = Processes()
        self.servers = Servers()
        self.setup: Setup | None = None
        """The connection that is being set up, for the method that asyncio calls next, which takes it from here."""
        self.accepted_fd = -1
        """A socket that other code has accepted, while a transport is made for it."""
        self.sending: dict[int, list[Any]] = {}
        """``id`` of a socket that sends a file -> its transport's stats, and how much of the file is counted."""
        self.read_buffer: memoryview | None = None
        """What the loop's datagram sockets read into, one at a time."""
        self.slow_ns = NEVER_NS
        """``loop.slow_callback_duration`` in nanoseconds."""
        self.profile = IterationProfile()
        self.tasks: Any = None
        """The core's table of the loop's tasks; None on the fallback loop."""
        self.episode: Any = None
        """The watchdog's episode, while it sees the loop blocked."""
        self.held: deque[Held] = deque()
        """Objects that the watchdog's samples held, for the loop's thread to drop."""
        self.usage: Any = None
        """What the loop's thread had used when the watchdog last measured it."""
        self.wakes_once = False
        """Whether calls from other threads share a wake-up. The compiled core keeps this and the next in its state."""
        self.woken = 0
        """The process (see ``pure.self_pipe``) that has such a wake-up on its way; 0 for none."""
        self.counters: Counters | None = None
        self.metrics: registry.LoopMetrics | None = None
        self.iterating = False
        """Whether obsloop's ``run_forever`` calls ``run_once``, which may then go on until the loop stops."""
        self.foreign: dict[int, tuple[int, int]] = {}
        """``id`` of a ready foreign handle, which has no slots for marks -> its kind and ready time."""
        self.unstamped = (OTHER, 0)
        """The marks of the foreign handle that runs, or ran last."""

    def lease(self, loop: asyncio.AbstractEventLoop) -> Counters:
        """Return the counters of this loop, leased under its name at the first call.

        That settles the name now, not when the loop is made: many programs make a loop in one thread and run it in
        another.
        """
        if self.counters is None:
            self.metrics, self.counters = registry.lease(self._name(), loop)
            self.metrics.partial = self.partial and self.metrics.partial is not False
            self.set_thresholds()
        return self.counters

    def metrics_of(self, loop: asyncio.AbstractEventLoop) -> registry.LoopMetrics:
        """Return the metrics of this loop's name. If the loop has not run yet, that settles the name."""
        if self.metrics is None:
            self.lease(loop)
        assert self.metrics is not None  # noqa: S101 - lease() has just set it
        return self.metrics

    def set_thresholds(self) -> None:
        """Write to the counters from which duration on callbacks, iterations and tasks are slow."""
        if self.counters is not None:
            self.counters.set_thresholds(self.slow_ns, self.slow_iteration_ns)
            self.counters.slow_task_ns = nanoseconds(self.settings.slow_task)

    @property
    def slow_iteration_ns(self) -> int:
        """The duration from which on an iteration is slow: from the settings, or that of a slow callback."""
        seconds = self.settings.slow_iteration
        return min(self.slow_ns if seconds is None else nanoseconds(seconds), _iteration_limit_ns)

    def snapshot(self, loop: asyncio.AbstractEventLoop) -> Snapshot:
        """Return the metrics of this loop's name at this moment. If the loop has not run yet, that settles the name."""
        return snapshot_of(self.metrics_of(loop))

    def _name(self) -> str:
        thread = threading.current_thread()
        return self.settings.name or (MAIN if thread is threading.main_thread() else kind_of_thread(thread.name))

    def release(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give a closed loop's counters back to the registry, and forget its probes' objects."""
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
        self.anyio.forget()
        self.processes.live.clear()
        self.servers.forget()
        self.setup = None
        self.read_buffer = None
        drop(self)

    def forked(self) -> None:
        """Begin anew in a forked child: the executors' workers are gone, and the subprocesses are the parent's."""
        self.executors.clear()
        self.anyio.forget()
        self.processes.live.clear()
        self.servers.forget()
        self.setup = None
        self.episode = self.usage = None

    def stamp(self, handle: asyncio.Handle, kind: int, ready_ns: int) -> None:
        """Note a foreign handle's kind and ready time, until ``unstamp`` takes them when the handle runs."""
        self.foreign[id(handle)] = (kind, ready_ns)

    def unstamp(self, handle: Any, default_ns: int) -> tuple[int, int]:
        """Take kind and ready time of a handle of any class; for an unknown one, ``OTHER`` and ``default_ns``."""
        marks = self.foreign.pop(id(handle), None) or _marks.marks(handle) or (OTHER, default_ns)
        self.unstamped = marks
        return marks

    def marks_of_running(self, handle: Any) -> tuple[int, int]:
        """Return kind and ready time of the handle that runs at this moment."""
        return _marks.marks(handle) or self.unstamped


class Observed(SelectorEventLoop):
    """The part of an observed loop that does not run per callback."""

    _obsloop: Observation
    # Not put into the loop's `__dict__`: reading that would slow down every look-up of an attribute.
    _obsloop_slow: float

    # A plain attribute in asyncio. As a property it takes effect at once and costs nothing per callback.
    @property
    def slow_callback_duration(self) -> float:
        """Seconds after which a callback is slow: asyncio's own attribute, 0.1 by default.

        asyncio logs such a callback in debug mode; obsloop counts and reports it to instruments in any mode.
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
        """Register an instrument (see ``obsloop.Instrument``) for this loop. Registering it again has no effect.

        From any thread, at any time, also within a hook. An instrument without a hook raises ``TypeError``.
        """
        self._obsloop.instruments.add(instrument)

    def remove_instrument(self, instrument: Any) -> None:
        """Remove an instrument. One that was not added to this loop raises ``ValueError``."""
        self._obsloop.instruments.remove(instrument)

    def set_exception_handler(self, handler: Any) -> None:
        """Set the handler for errors that no code caught, as on the stock loop. obsloop counts them first."""
        super().set_exception_handler(handler)  # refuses an object that is not callable
        self._obsloop.exception_handler = handler
        self._exception_handler = exceptions.on_exception

    def get_exception_handler(self) -> Any:
        """Return the handler that was set, or None."""
        return self._obsloop.exception_handler

    def close(self) -> None:
        """Close the loop, as on the stock loop. Its metrics stay, under its name."""
        super().close()
        backend.forget()
        self._obsloop.release(self)
        watchdog.closed()

    def snapshot(self) -> Snapshot:
        """Return the metrics of this loop's name at this moment. From any thread."""
        return self._obsloop.snapshot(self)


def observe(loop: Any, settings: Settings) -> None:
    """Give ``loop`` its ``Observation``, and start the service if the settings have an address."""
    obs = Observation(settings)
    seconds = settings.slow_callback
    loop._obsloop_slow = loop.slow_callback_duration if seconds is None else seconds
    obs.slow_ns = nanoseconds(loop._obsloop_slow)
    obs.exception_handler, loop._exception_handler = loop._exception_handler, exceptions.on_exception
    obs.tasks = backend.new_task_table(loop)
    carry(loop, obs)


def carry(loop: Any, obs: Observation) -> None:
    """Let ``loop`` carry ``obs``, and start what its settings ask for."""
    loop._obsloop = obs
    settings = obs.settings
    levels.choose(settings.metrics)
    _loops.add(loop)
    gc_probe.install()
    if settings.track_tasks:
        tracking.track(loop)
    if settings.track_locks:
        lock_places.begin()
    if settings.address is not None:
        service.ensure(
            settings.address,
            unhealthy_after=settings.unhealthy_after,
            allowed_hosts=settings.allowed_hosts,
            socket_mode=settings.socket_mode,
        )


def nanoseconds(seconds: Any) -> int:
    """Return a threshold in nanoseconds; ``NEVER_NS`` if it is no number, or too large."""
    try:
        return int(min(NEVER_NS, max(0, round(seconds * 1e9))))
    except Exception:  # like asyncio, accept any value
        return NEVER_NS


_loops: weakref.WeakSet[Any] = weakref.WeakSet()
_iteration_limit_ns = NEVER_NS


def limit_iterations(seconds: float | None) -> None:
    """For tests: make iterations of all loops, also future ones, slow at ``seconds`` at the latest. None: no limit."""
    global _iteration_limit_ns  # noqa: PLW0603 - one limit for the whole process
    _iteration_limit_ns = NEVER_NS if seconds is None else nanoseconds(seconds)
    for loop in list(_loops):
        loop._obsloop.set_thresholds()
