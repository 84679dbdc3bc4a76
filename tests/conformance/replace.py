"""Puts the loop under test in the place of the stock loop, and counts the loops made.

What is replaced, in the child process, before a test module is imported:

* `SelectorEventLoop`, `EventLoop` (3.13+) and `_UnixSelectorEventLoop`, in `asyncio` and `asyncio.unix_events`, and the
  default policy's loop factory: the class under test itself. So `asyncio.run`, `Runner`, `new_event_loop` and
  `IsolatedAsyncioTestCase` use it too.
* `BaseSelectorEventLoop`: the class under test without the Unix part (test_selector_events derives from it).
* `BaseEventLoop`: the class under test without selector and Unix part. test_base_events, test_pep492 and
  test_runners instantiate it and put a mock for a selector on it; `TestLoop` of the suite's own utils, on which most of
  test_tasks, test_futures, test_locks and test_streams runs, derives from it and overrides `time` and `_run_once`.

The last two are made by `graft`: the tests get our methods over the stock base they asked for, nothing more.

What stays stock, because a replacement would mean nothing: the proactor loop, the abstract loop, loops that a test
makes in an interpreter of its own (`python -c ...`), and the names in STAYS_STOCK.
"""

import asyncio
import asyncio.proactor_events  # derives from BaseEventLoop: imported here so that it derives from the stock one
import functools
import importlib
from asyncio import base_events, selector_events, unix_events
from collections import Counter
from collections.abc import Callable
from typing import Any

STOCK_LINE = unix_events._UnixSelectorEventLoop.__mro__

# Test module -> names of base classes which it wants as they are.
STAYS_STOCK = {
    # Asks isinstance(loop, BaseSelectorEventLoop) of a full loop, to skip when it is not.
    "test_events": {"BaseSelectorEventLoop"},
    # Patches a method on BaseEventLoop by name and expects its loop, a TestLoop, to have the patch.
    "test_tasks": {"BaseEventLoop"},
}


class LoopCount:
    """How many loops were made in this process, by class, and how many of them were of the class under test."""

    def __init__(self) -> None:
        self.made = 0
        self.ours = 0
        self.others: Counter[str] = Counter()

    def start(self, loop_class: type | None) -> None:
        """Count from now on. Every asyncio loop passes the base constructor, whoever made it."""
        stock_init = base_events.BaseEventLoop.__init__

        @functools.wraps(stock_init)
        def counting_init(loop: Any) -> None:
            self.made += 1
            if loop_class is not None and isinstance(loop, loop_class):
                self.ours += 1
            else:
                self.others[type(loop).__qualname__] += 1
            stock_init(loop)

        base_events.BaseEventLoop.__init__ = counting_init


class _NoSelector:
    """Stands between our class and a bare BaseEventLoop, whose constructor takes no selector."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__()


class _Grafted(type):
    """Metaclass of a class that inherits from ours, but from `grafted_onto` where ours inherits from the stock loop."""

    def mro(cls) -> list[type]:
        line = super().mro()
        base = cls.__dict__.get("grafted_onto")
        if base is None:  # a test's own subclass of a grafted class
            return line
        ours = [kind for kind in line if kind not in STOCK_LINE]
        between = [_NoSelector] if base is base_events.BaseEventLoop else []
        return [*ours, *between, *base.__mro__]


def graft(loop_class: type, base: type) -> type:
    """The class that `loop_class` would be had it been derived from `base`, one of the stock loop's own bases.

    Private methods that it overrides of a part that `base` is without stay the base's, where that has one to refuse
    with: `_make_socket_transport` is the selector part's, and there is nothing to override without it.
    """
    ours = (vars(kind) for kind in loop_class.__mro__ if kind not in STOCK_LINE)
    names = {name for names in ours for name in names if name.startswith("_") and not name.startswith("__")}
    first = {name: next((kind for kind in STOCK_LINE if name in vars(kind)), None) for name in names}
    kept = {n: getattr(base, n) for n, kind in first.items() if kind not in (None, *base.__mro__) and hasattr(base, n)}
    return _Grafted(base.__name__, (loop_class,), {**kept, "grafted_onto": base, "__module__": base.__module__})


def load_class(spec: str) -> Any:
    """The loop class named by MODULE:CLASS; SystemExit with the reason when there is none or it is no selector loop."""
    module_name, _, class_name = spec.partition(":")
    try:
        loop_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"--loop {spec}: expected MODULE:CLASS that can be imported: {error}") from error
    if not (isinstance(loop_class, type) and issubclass(loop_class, unix_events._UnixSelectorEventLoop)):
        raise SystemExit(f"--loop {spec}: expected a subclass of asyncio.SelectorEventLoop, got {loop_class!r}")
    return loop_class


def replace(loop_class: type, test_module: str) -> None:
    """Put `loop_class` in the place of the stock classes for the tests of `test_module` (see the top of this file)."""
    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop", "_UnixSelectorEventLoop"):
            if hasattr(module, name):
                setattr(module, name, loop_class)
    unix_events._UnixDefaultEventLoopPolicy._loop_factory = loop_class

    undo_base = _replace_name("BaseEventLoop", graft(loop_class, base_events.BaseEventLoop), asyncio, base_events)
    undo_selector = _replace_name(
        "BaseSelectorEventLoop", graft(loop_class, selector_events.BaseSelectorEventLoop), selector_events
    )
    # While every name is replaced, so that the suite's TestLoop derives from our class in each test module.
    importlib.import_module("test.test_asyncio.utils")
    stock_names = STAYS_STOCK.get(test_module, set())
    if "BaseEventLoop" in stock_names:
        undo_base()
    if "BaseSelectorEventLoop" in stock_names:
        undo_selector()


def _replace_name(name: str, value: type, *modules: Any) -> Callable[[], None]:
    """Set `name` in the modules to `value`; return what sets it back."""
    stock = getattr(modules[-1], name)
    for module in modules:
        setattr(module, name, value)

    def undo() -> None:
        for module in modules:
            setattr(module, name, stock)

    return undo
