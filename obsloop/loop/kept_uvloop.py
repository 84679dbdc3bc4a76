"""Observe a loop that stays uvloop's: what obsloop knows of uvloop and libuv.

The loop's class becomes a subclass of its own, which is all that changes in it. libuv measures how long it waits, and
calls two hooks of obsloop in each iteration (``hotpath.pure.libuv_hooks``). Nothing is done per callback: reading a
clock for each would cost a tenth of uvloop's time. So metrics of callbacks, connections and single tasks have no
points, and an iteration's culprit is what the watchdog saw.

If this build of uvloop does not export libuv's functions, the hooks are missing: then there are neither times nor
blocks, and one log line says so.
"""

from __future__ import annotations

# uvloop's classes have no types here.
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
import ctypes
import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from obsloop.base import clock
from obsloop.base.guarded import guarded
from obsloop.base.log import first_time, logger
from obsloop.base.settings import Settings
from obsloop.blocking import cause, endings, watchdog
from obsloop.hotpath import backend
from obsloop.hotpath.observer import slow_iteration
from obsloop.loop import exceptions
from obsloop.loop.observation import Observation, Observed, carry, nanoseconds
from obsloop.metrics import runs
from obsloop.metrics.counters import Counters
from obsloop.probes import executors

_uvloop: Any = import_module("uvloop")
_module: Any = import_module("uvloop.loop")

_IDLE_TIME_OPTION = 1  # UV_METRICS_IDLE_TIME
_CHECK, _PREPARE = 2, 9  # of the enum uv_handle_type, for uv_handle_size
_NEEDED = (
    "uv_loop_configure", "uv_metrics_idle_time", "uv_handle_size", "uv_unref", "uv_close",
    "uv_prepare_init", "uv_prepare_start", "uv_check_init", "uv_check_start",
)  # fmt: skip


def _load_libuv() -> Any:
    """Return uvloop's libuv, whose functions keep the GIL; None if this build does not export them."""
    try:
        libuv = ctypes.PyDLL(_module.__file__)
        for name in _NEEDED:
            getattr(libuv, name)
        libuv.uv_handle_size.restype = ctypes.c_size_t
        return libuv
    except (OSError, AttributeError):
        return None


_LibuvHooks: Any = backend.load_libuv_hooks()
_libuv: Any = _load_libuv() if _LibuvHooks is not None else None


class _Libuv:
    """The hooks in libuv's loop."""

    __slots__ = ("handles", "hooks")

    def __init__(self, loop: Any, counters: Counters, report: Callable[[int, int], None]) -> None:
        pointer: Any = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        address: int = pointer(_module.libuv_get_loop_t_ptr(loop), None)
        at = ctypes.c_void_p(address)
        _libuv.uv_loop_configure(at, ctypes.c_int(_IDLE_TIME_OPTION))
        idle_time = ctypes.cast(_libuv.uv_metrics_idle_time, ctypes.c_void_p).value
        self.hooks = _LibuvHooks(counters, address, idle_time, report)
        self.handles: list[Any] = []
        for kind, hook in (("prepare", self.hooks.before_poll), ("check", self.hooks.after_poll)):
            size = _libuv.uv_handle_size(_PREPARE if kind == "prepare" else _CHECK)
            handle = ctypes.create_string_buffer(size)
            getattr(_libuv, f"uv_{kind}_init")(at, handle)
            ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))[0] = self.hooks.data  # `data` is its first field
            getattr(_libuv, f"uv_{kind}_start")(handle, ctypes.c_void_p(hook))
            _libuv.uv_unref(handle)  # it does not keep the loop running
            self.handles.append(handle)

    def close(self) -> None:
        """Take the hooks out, before uvloop looks for open handles. libuv lets go of them when the loop is closed."""
        self.hooks.close()
        for handle in self.handles:
            _libuv.uv_close(handle, None)


class _KeptObservation(Observation):
    """What an observed uvloop loop carries."""

    __slots__ = ("adopted", "libuv", "no_more_jobs")
    partial = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.adopted = False
        self.libuv: _Libuv | None = None
        self.no_more_jobs = False
        """Whether the default executor was shut down."""

    def lease(self, loop: Any) -> Counters:
        """Return the counters; at the first call, put the hooks into libuv's loop."""
        if self.counters is None:
            counters = super().lease(loop)
            if _libuv is not None:
                ref = weakref.ref(loop)
                self.libuv = _Libuv(loop, counters, lambda began_ns, end_ns: _ended(ref(), began_ns, end_ns))
        assert self.counters is not None  # noqa: S101 - lease() has just set it
        return self.counters

    def begin_run(self, loop: Any) -> None:
        """Note that the loop runs from now on, in this thread."""
        counters = self.lease(loop)
        self.end_run()  # of an adopted run
        if self.libuv is not None:
            self.libuv.hooks.begin()
            counters.begin_run(clock.monotonic_ns())
            runs.began(loop, counters)

    def look_into_poll(self, least_ns: int) -> int:
        """Return when libuv's poll began to call protocols, if it has called them for ``least_ns`` by now; else 0."""
        return self.libuv.hooks.look_into_poll(least_ns) if self.libuv is not None else 0

    def end_run(self) -> None:
        """Note that the loop does not run any more."""
        self.adopted = False
        counters = self.counters
        if counters is not None and counters.run_started_ns:
            now_ns = clock.monotonic_ns()
            began_ns, counters.began_ns = counters.began_ns, 0
            if began_ns:
                counters.record_iteration(now_ns - began_ns)
            runs.ended(counters)
            counters.end_run(now_ns)


def _ended(loop: Any, began_ns: int, end_ns: int) -> None:
    """Report a slow iteration. The hook calls this in the loop's thread."""
    if loop is not None:
        guarded(_name, loop, began_ns, end_ns)
        slow_iteration(loop, loop._obsloop.counters, began_ns, end_ns)


def _name(loop: Any, began_ns: int, end_ns: int) -> None:
    """Give the iteration's time to what the watchdog saw of it."""
    obs = loop._obsloop
    seen = endings.seen(obs, began_ns, end_ns)
    if seen is None:
        return
    profile, spent_ns = obs.profile.of(began_ns), end_ns - began_ns
    profile.add(seen.site, seen.kind, spent_ns, 0)
    why = cause.why(obs, obs.counters, began_ns, end_ns)
    profile.blame.add(seen.culprit, why, spent_ns, seen.route)
    obs.metrics_of(loop).labelled.count("asyncio.eventloop.callback.slow", seen.culprit.function)


_carried: weakref.WeakKeyDictionary[Any, _KeptObservation] = weakref.WeakKeyDictionary()


class Loop(_uvloop.Loop):  # type: ignore[misc]
    """A ``uvloop.Loop`` that is observed."""

    __slots__ = ()
    snapshot = Observed.snapshot
    add_instrument = Observed.add_instrument
    remove_instrument = Observed.remove_instrument

    # Not in the loop's `__dict__`, which is empty: with a name in it, each look-up of a method takes longer.
    @property
    def _obsloop(self) -> _KeptObservation:
        try:
            return _carried[self]
        except KeyError:
            raise AttributeError("_obsloop") from None

    @_obsloop.setter
    def _obsloop(self, obs: _KeptObservation) -> None:
        _carried[self] = obs

    def __init__(self, *, settings: Settings | None = None) -> None:
        super().__init__()
        _observe(self, settings)

    def run_forever(self) -> None:
        """Run until ``stop()`` is called, as uvloop does."""
        if self.is_running():
            super().run_forever()  # refuses
        self._obsloop.begin_run(self)
        try:
            super().run_forever()
        finally:
            self._obsloop.end_run()

    def close(self) -> None:
        """Close the loop, as uvloop does. Its metrics stay, under its name."""
        obs = self._obsloop
        if not self.is_running() and not self.is_closed():
            obs.end_run()
            if obs.libuv is not None:
                obs.libuv.close()
        super().close()
        obs.libuv = None
        obs.release(self)
        watchdog.closed()

    @property
    def slow_callback_duration(self) -> Any:
        """Seconds after which a callback is slow: asyncio's own attribute, 0.1 by default."""
        return _uvloop.Loop.slow_callback_duration.__get__(self)

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds: Any) -> None:
        _uvloop.Loop.slow_callback_duration.__set__(self, seconds)
        self._obsloop.slow_ns = nanoseconds(seconds)
        self._obsloop.set_thresholds()

    def set_exception_handler(self, handler: Any) -> None:
        """Set the handler for errors that no code caught, as uvloop does. obsloop counts them first."""
        super().set_exception_handler(handler)  # refuses an object that is not callable
        self._obsloop.exception_handler = handler
        super().set_exception_handler(exceptions.on_exception)

    def get_exception_handler(self) -> Any:
        """Return the handler that was set, or None."""
        return self._obsloop.exception_handler

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Call ``func(*args)`` in ``executor`` (None: the default one), as uvloop does."""
        return executors.run(self, executor, func, args)

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Shut the default executor down, as uvloop does."""
        self._obsloop.no_more_jobs = True
        await super().shutdown_default_executor(*args, **kwargs)

    # What `probes.executors` uses of asyncio's loop.

    @property
    def _debug(self) -> bool:
        return bool(self.get_debug())

    def _check_closed(self) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")

    def _check_default_executor(self) -> None:
        if self._obsloop.no_more_jobs:
            raise RuntimeError("Executor shutdown has been called")

    def _check_callback(self, callback: Any, method: str) -> None:
        super().call_soon(callback).cancel()  # refuses what is no callback

    @property
    def _default_executor(self) -> Any:
        """uvloop's own, which only the garbage collector shows."""
        found = (one for one in gc.get_referents(self) if isinstance(one, ThreadPoolExecutor))
        return next(found, None)

    @_default_executor.setter
    def _default_executor(self, executor: Any) -> None:
        self.set_default_executor(executor)


def _observe(loop: Any, settings: Settings | None) -> None:
    obs = _KeptObservation(settings or Settings.from_env(strict=False))
    seconds = obs.settings.slow_callback
    carry(loop, obs)
    loop.slow_callback_duration = loop.slow_callback_duration if seconds is None else seconds
    obs.exception_handler = _uvloop.Loop.get_exception_handler(loop)
    _uvloop.Loop.set_exception_handler(loop, exceptions.on_exception)
    if _libuv is None and first_time("libuv"):
        logger.warning(
            "loops of uvloop %s are observed without times and blocks: this build does not export libuv's functions."
            " uvloop's wheels for Linux do.",
            _uvloop.__version__,
        )


_OBSERVED = "_obsloop_kept"


def observed_class(cls: Any) -> Any:
    """Return the class that a loop of ``cls``, uvloop's or a subclass of it, becomes."""
    if cls is _uvloop.Loop or issubclass(cls, Loop):
        return Loop if cls is _uvloop.Loop else cls
    observed = vars(cls).get(_OBSERVED)  # not ``getattr``, which finds that of a base
    if observed is None:
        observed = type(cls.__name__, (cls, Loop), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
        setattr(cls, _OBSERVED, observed)
    return observed


def observe(loop: Any, settings: Settings | None = None) -> Any:
    """Turn a uvloop loop, which may be running in this thread, into an observed one, in place, and return it."""
    if isinstance(loop, Loop):
        return loop
    loop.__class__ = observed_class(type(loop))
    _observe(loop, settings)
    if loop.is_running():
        loop._obsloop.begin_run(loop)
        loop._obsloop.adopted = True
    return loop
