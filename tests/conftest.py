"""Fixtures that many folders of tests need: a loop of each kind, closed when the test is over.

`loop_kind` runs a test twice, on the stock `asyncio.SelectorEventLoop` and on `obsloop.Loop`. The stock half
shows that the test states what asyncio really does, the other half that we do the same.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import parts, selection

HERE = Path(__file__).parent
LoopFactory = Callable[..., asyncio.AbstractEventLoop]


# Where the tests run on several interpreters and cores, what need not be repeated everywhere is taken out, and said.
AGAIN = "TESTS_ON_THE_OTHER_CORE" in os.environ
PURE = bool(os.environ.get("OBSLOOP_PURE"))
# `make test-all` installs them for the machine's own interpreter: others wait long for the wheels of such packages.
WITHOUT_CLIENTS = "TESTS_WITHOUT_CLIENTS" in os.environ
# They know the loop by its public names. The compiled core has them on each interpreter, the pure one on the machine's
# own, but where `make test-all` is asked for the core's tests only.
ABOVE_THE_CORE = ("cli", "dashboards", "exporters", "group", "service", "top", "test_demo.py", "test_readme.py")
CORE_ONLY = "TESTS_OF_THE_CORE_ONLY" in os.environ
MARKERS = {
    "once": ("needs no second interpreter or core, and takes long", AGAIN),
    "both_cores": ("runs both cores by itself", AGAIN and PURE),
    "clients": ("needs real servers and clients", WITHOUT_CLIENTS),
}
collect_ignore = ["clients"] if WITHOUT_CLIENTS else []  # not even read where the clients may be missing


def pytest_configure(config) -> None:
    parts.use_ours()
    # A busy machine blocks any loop for half a second. The log line about it would be in the way of many tests.
    os.environ.setdefault("OBSLOOP_LOG_BLOCKED_AFTER", "3600")
    config.pluginmanager.register(selection, "obsloop-selection")
    for marker, (meaning, _) in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    # A shell starts background jobs with SIGINT ignored, and Python keeps that. The programs that the tests start would
    # inherit it, and Ctrl-C would not end them. A signal with a handler is back at its default after exec.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    return "not run here, as they are run on the machine's own interpreter: tests/clients" if WITHOUT_CLIENTS else None


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook, and asks its own plugin early
def pytest_collection_modifyitems(config, items) -> None:
    for marker, (meaning, taken_out) in MARKERS.items():
        if taken_out:
            out = [item for item in items if item.get_closest_marker(marker)]
            selection.take_out(config, items, out, f"it {meaning}")
    # It cannot depend on our core, and has run on this interpreter beside the compiled one.
    if AGAIN and PURE:
        selection.take_out(
            config, items, list(filter(selection.on_the_stock_loop, items)), "it is the stock loop's half"
        )
    if CORE_ONLY or (AGAIN and PURE and WITHOUT_CLIENTS):
        above = [item for item in items if item.path.relative_to(HERE).parts[0] in ABOVE_THE_CORE]
        selection.take_out(config, items, above, "it cannot see the core, and other interpreters have it")
    selection.keep_together(items)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter) -> None:
    """Say last, before the closing line, what was not run: by the workers, and for want of a part."""
    for line in selection.not_run(terminalreporter.config):
        terminalreporter.line(line)
    skipped = terminalreporter.stats.get("skipped", ())
    lines = parts.left_out(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    if lines:
        terminalreporter.section("parts that cannot be had", yellow=True)
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(params=["stock", "obsloop"])
def loop_kind(request) -> str:
    """The name of the loop under test."""
    return request.param


@pytest.fixture
def loop_class(loop_kind) -> type[asyncio.SelectorEventLoop]:
    """The class of the loop under test."""
    if loop_kind == "stock":
        return asyncio.SelectorEventLoop
    import obsloop  # here, so that the stock half runs whatever state ours is in

    return obsloop.Loop


@pytest.fixture
def make_loop(loop_class) -> Iterator[LoopFactory]:
    """A function that makes loops of the class under test; what it made is closed afterwards."""
    made: list[asyncio.AbstractEventLoop] = []

    def make(*args, **kwargs) -> asyncio.AbstractEventLoop:
        loop = loop_class(*args, **kwargs)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        if not loop.is_closed():
            loop.set_task_factory(None)  # a test may have left one that makes no tasks
            loop.run_until_complete(asyncio.wait_for(loop.shutdown_default_executor(), 30))
            loop.close()


@pytest.fixture
def loop(make_loop) -> asyncio.AbstractEventLoop:
    """One loop of the class under test."""
    return make_loop()


@pytest.fixture
def cheap_collections() -> Iterator[None]:
    """Keep the collector from all that was there before: for tests that collect often."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def clean_metrics() -> None:
    """No figures from the tests before: as if no observed loop had run in this process."""
    from .support import forget_everything

    forget_everything()


@pytest.fixture
def nothing_to_tell() -> None:
    """The watchdog has told all that the tests before gave it to tell."""
    from .support import until_all_is_told

    until_all_is_told()


@pytest.fixture
def stepped():
    """A step clock and an observed loop that is timed with it."""
    from .support import stepped

    with stepped() as clock_and_loop:
        yield clock_and_loop
