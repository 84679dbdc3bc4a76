"""Fail tests during which an event loop was blocked for too long: the part of the pytest plugin that judges.

``obsloop_pytest``, the module that pytest loads, has the option, the marker and the hooks. It loads this module when
the option or the marker is used. From then on until pytest ends, every plain asyncio loop that is made in the process
is an observed one. During each test that has a limit, an instrument notes the iterations over it. Only the test's call
counts, not the fixtures before and after. Every loop of the process counts, in any thread.

uvloop's loops stay as they are, and trio uses no asyncio loop: those are not observed, and no test fails for them.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from obsloop.base.settings import Settings, SettingsError
from obsloop.instruments import add_instrument, remove_instrument
from obsloop.integrations import autoload
from obsloop.loop.observation import limit_iterations

if TYPE_CHECKING:
    from traceback import FrameSummary

    from obsloop.events import Event, LoopBlocked, LoopUnblocked, Sample, SlowIteration

_MARKER = "obsloop(max_block=SECONDS)"
_LISTED = 10
_PATIENCE = 0.5
"""Seconds that the report of a failed test waits for the watchdog's events."""


class Session:
    """The limit of one run of pytest, and its observed loops."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        """The limit of tests without a marker."""
        self._undo: Callable[[], None] | None = None

    def observe(self) -> None:
        """Observe every plain loop made from now on. Calling it again has no effect."""
        if self._undo is None:
            try:
                Settings.from_env()
            except SettingsError as error:
                raise pytest.UsageError(f"obsloop: {error}") from None
            self._undo = autoload.observe_asyncio()

    def undo(self) -> None:
        """Make plain loops again."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def complaints(self, items: Iterable[pytest.Item]) -> list[str]:
        """Return one line for each bad marker of these tests."""
        found: list[str] = []
        for item in items:
            try:
                _limit_of(item, self)
            except _BadMarkerError as error:
                found.append(str(error))
        return found

    def call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a test that is over its limit. A test that fails anyway keeps its failure and gets only the section."""
        try:
            limit = _limit_of(item, self)
        except _BadMarkerError as error:  # the marker was added after the collection
            pytest.fail(str(error), pytrace=False)
        if limit is None:
            return (yield)
        self.observe()
        watch = _Watch(limit)
        failed = True
        try:
            with watch.watching():
                result = yield
            failed = bool(getattr(item, "_excinfo", None))  # a TestCase's own failure, which pytest raises later
        except (Exception, pytest.fail.Exception):
            _explain(item, watch, reported=False)
            raise
        if watch.blocks:
            _explain(item, watch, reported=not failed)
            if not failed:
                pytest.fail(watch.message(item.config.rootpath), pytrace=False)
        return result


class _BadMarkerError(ValueError):
    """A marker that does not say how long a loop may be blocked."""


def _limit_of(item: pytest.Item, session: Session) -> float | None:
    """Return how many seconds a loop may be blocked during this test; None: no limit."""
    marker = item.get_closest_marker("obsloop")
    if marker is None:
        return session.limit
    value: Any = marker.kwargs.get("max_block", "")
    limit: float | None = value if type(value) in {int, float} else None
    good = value is None or (limit is not None and 0 < limit < math.inf)
    if marker.args or set(marker.kwargs) != {"max_block"} or not good:
        got = ", ".join([*map(repr, marker.args), *(f"{key}={value!r}" for key, value in marker.kwargs.items())])
        raise _BadMarkerError(
            f"{item.nodeid}: bad marker obsloop({got}): expected {_MARKER}, a positive number such as 0.05, or None"
        )
    return limit


# --- what happened


class _Watch:
    """An instrument for the time of one test."""

    _now = staticmethod(time.monotonic)  # taken here, so that a test that freezes the time does not freeze this clock

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.blocks: list[SlowIteration] = []
        """The longest iterations over the limit, in the order of time."""
        self.more = 0
        """How many more iterations were over the limit."""
        self._first_sight: list[LoopBlocked] = []
        self._seen: list[LoopUnblocked] = []
        self._began = self._now()
        self._arrived = threading.Condition()

    @contextmanager
    def watching(self) -> Generator[None]:
        """Note every iteration over the limit, of any loop, within this context."""
        self._began = self._now()
        _limits.append(self.limit)
        _apply_limits()
        add_instrument(self)
        try:
            yield
        finally:
            _limits.remove(self.limit)
            _apply_limits()
            self._wait()
            remove_instrument(self)

    def on_slow_iteration(self, event: SlowIteration) -> None:
        """Note an iteration over the limit. Called in the loop's thread."""
        # An iteration that another thread's loop began before the test does not count.
        if event.duration <= self.limit or self._now() - event.duration < self._began:
            return
        with self._arrived:
            self.blocks.append(event)
            if len(self.blocks) > _LISTED:
                self.blocks.remove(min(self.blocks, key=lambda block: block.duration))
                self.more += 1

    def on_loop_blocked(self, event: LoopBlocked) -> None:
        """Note that the watchdog saw a block, whose end it will report."""
        with self._arrived:
            self._first_sight.append(event)

    def on_loop_unblocked(self, event: LoopUnblocked) -> None:
        """Note where a blocked loop was while it was blocked."""
        with self._arrived:
            self._seen.append(event)
            self._arrived.notify_all()

    def _wait(self) -> None:
        """Wait a moment if the watchdog has seen one of the blocks and not reported its end."""
        end = self._now() + _PATIENCE
        with self._arrived:
            while any(
                _nearest(block, self._first_sight) and not _nearest(block, self._seen) for block in self.blocks
            ) and self._arrived.wait(end - self._now()):
                pass

    def message(self, root: os.PathLike[str]) -> str:
        """Return one line for each block."""
        lines: list[str] = []
        allowed = f" (at most {self.limit:g} s are allowed)"
        for block in self.blocks:
            seen = _nearest(block, self._seen)
            whose = "the loop" if block.loop_name == "main" else f"the loop {block.loop_name}"
            cause = seen.cause if seen and block.cause == "unknown" else block.cause
            blamed = seen if seen and seen.culprit_seen else block
            lines.append(
                f"obsloop: {whose} was blocked for {block.duration:.3f} s{allowed}"
                f" by {blamed.culprit_function or block.name or 'a callback'}"
                f"{_place(blamed.culprit_filename, blamed.culprit_lineno, root)}, cause: {cause}"
            )
            if blamed.detail:
                lines[-1] += f"; {blamed.detail}"
            allowed = ""
        if self.more:
            lines.append(f"obsloop: shorter blocks not listed: {self.more}")
        return "\n".join(lines)

    def details(self, root: os.PathLike[str]) -> str:
        """Return what took the time, and where the watchdog saw the loop; empty if nothing is known."""
        lines: list[str] = []
        for block in self.blocks:
            seen = _nearest(block, self._seen)
            if len(block.top) < 2 and not (seen and seen.samples):
                continue
            lines.append(f"{block.duration:.3f} s, {block.name}:")
            if len(block.top) > 1:
                lines += [f"  {seconds:.3f} s in {_calls(calls)} of {name}" for name, seconds, calls in block.top]
            lines += _stacks(seen.samples, root) if seen else []
        return "\n".join(lines)


_limits: list[float] = []
"""The limits of the tests that run now: more than one if a test runs pytest."""


def _apply_limits() -> None:
    limit_iterations(min(_limits, default=None))


def _nearest(block: SlowIteration, events: list[Any]) -> Any:
    """Return the event of the same loop that shares most time with ``block``, or None."""

    def shared(event: Event) -> float:
        end = min(event.started_at + event.duration, block.started_at + block.duration)
        return end - max(event.started_at, block.started_at)

    same = [event for event in events if event.loop_name == block.loop_name and shared(event) > 0]
    return max(same, key=shared, default=None)


# --- in words


def _explain(item: pytest.Item, watch: _Watch, *, reported: bool) -> None:
    """Add the section to the test's report. With ``reported``, the failure has the message already."""
    root = item.config.rootpath
    parts = [] if reported or not watch.blocks else [watch.message(root)]
    if details := watch.details(root):
        parts.append(details)
    if parts:
        item.add_report_section("call", "obsloop", "\n".join(parts))


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"


def _stacks(samples: tuple[Sample, ...], root: os.PathLike[str]) -> list[str]:
    """Return each different stack once, with how often and when it was seen first."""
    first: dict[tuple[tuple[str, int | None], ...], Sample] = {}
    times: Counter[tuple[tuple[str, int | None], ...]] = Counter()
    for sample in samples:
        key = tuple((frame.filename, frame.lineno) for frame in sample[1])
        first.setdefault(key, sample)
        times[key] += 1
    lines: list[str] = []
    for key, (after, stack) in first.items():
        often = f", {times[key]} times" if times[key] > 1 else ""
        lines.append(f"  seen after {after:.3f} s{often}:")
        for frame in stack:
            lines.append(f"    {_frame(frame, root)}")
            if frame.line:
                lines.append(f"      {frame.line.strip()}")
    return lines


def _frame(frame: FrameSummary, root: os.PathLike[str]) -> str:
    return f"{_relative(frame.filename, root)}:{frame.lineno} in {frame.name}"


def _place(filename: str, lineno: int, root: os.PathLike[str]) -> str:
    return f" ({_relative(filename, root)}:{lineno})" if filename else ""


def _relative(filename: str, root: os.PathLike[str]) -> str:
    """Return the path relative to pytest's root folder, if it is in it and not in an environment's site-packages."""
    inside = filename.startswith(os.path.join(root, "")) and "site-packages" not in filename
    return os.path.relpath(filename, root) if inside else filename
