"""Who blocked the loop: the culprit of each block, and its seconds in ``asyncio.eventloop.block.time``."""

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import obsloop
from obsloop.base import log
from obsloop.blocking.blame import MAX_CULPRITS, Blame, Share
from obsloop.events import LoopBlocked, LoopUnblocked
from obsloop.introspect.own_code import Culprit
from obsloop.testing import Recorder
from tests.blocking.support import until
from tests.support import forget_everything, program, stepped as step_clock

BLOCK_TIME = "asyncio.eventloop.block.time"
SLOW = "asyncio.eventloop.callback.slow"


@pytest.fixture(autouse=True)
def _from_nothing():
    forget_everything()
    log.forked()


def seconds_by_culprit(name: str) -> dict[str, float]:
    """What the metric says, over all causes."""
    found: dict[str, float] = {}
    for (culprit, _), seconds in obsloop.snapshots()[name][BLOCK_TIME].items():
        found[culprit] = found.get(culprit, 0.0) + seconds
    return found


def export(seconds: float, events: Recorder) -> None:
    """One culprit: it blocks for so long and, on a busy machine, until the watchdog has looked."""
    seen, end = len(events.blocked), time.monotonic() + seconds
    while time.monotonic() < end or len(events.blocked) == seen:
        time.sleep(0.01)


def render(seconds: float, events: Recorder) -> None:
    """Another one."""
    seen, end = len(events.blocked), time.monotonic() + seconds
    while time.monotonic() < end or len(events.blocked) == seen:
        time.sleep(0.01)


def test_two_functions_that_block_are_two_culprits():
    """Both below one coroutine, as under a server: each has its own seconds, and the sum is that of the blocks."""

    async def server(handler: Callable[[float, Recorder], None], seconds: float) -> None:
        handler(seconds, events)

    async def main() -> None:
        for _ in range(2):
            for handler, seconds in ((export, 0.4), (render, 0.2)):
                await asyncio.create_task(server(handler, seconds))
                await asyncio.sleep(0.02)

    with Recorder() as events:
        obsloop.run(main(), settings=obsloop.Settings(name="culprits"))
        until(lambda: len(events.unblocked) >= 4)
    snapshot = obsloop.snapshots()["culprits"]
    spent, put_in = seconds_by_culprit("culprits"), {f"{__name__}.export": 0.8, f"{__name__}.render": 0.4}
    for name, seconds in put_in.items():
        lasted = sum(event.duration for event in events.slow_callbacks if event.culprit_function == name)
        assert spent[name] >= lasted >= seconds
        assert snapshot[SLOW][name,] == 2
    assert sum(spent.values()) == pytest.approx(sum(event.duration for event in events.unblocked))


def library(tmp_path: Path) -> Path:
    """An installed package that blocks, as a database driver does."""
    folder = tmp_path / "site-packages" / "slowdb"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "def fetch(seen):\n    return _receive(seen)\n\n\ndef _receive(seen):\n    seen.wait()\n"
    )
    return folder.parent


class Seen(obsloop.Instrument):
    """Set an event when the watchdog has seen a block."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_loop_blocked(self, event: LoopBlocked) -> None:
        """The library may go on now."""
        self.event.set()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "main"),
        ({"own_packages": "slowdb"}, "slowdb._receive"),
        ({"foreign_packages": __name__}, "slowdb._receive"),
    ],
)
def test_a_library_that_blocks_is_blamed_on_the_line_that_called_it(tmp_path, monkeypatch, settings, expected):
    """Unless a setting says that the library is own code, or that the caller is a library."""
    monkeypatch.syspath_prepend(str(library(tmp_path)))
    monkeypatch.delitem(sys.modules, "slowdb", raising=False)
    slowdb = import_module("slowdb")
    seen = Seen()

    async def main() -> None:
        slowdb.fetch(seen.event)

    obsloop.add_instrument(seen)
    try:
        with Recorder() as events:
            obsloop.run(main(), settings=obsloop.Settings(name="library", **settings))
            unblocked = events.wait_for(LoopUnblocked)
    finally:
        obsloop.remove_instrument(seen)
    assert unblocked.culprit_seen
    if expected == "main":
        assert unblocked.culprit_function == f"{__name__}.{main.__qualname__}"
        assert (unblocked.culprit_filename, unblocked.culprit_lineno) == (__file__, main.__code__.co_firstlineno + 1)
        assert unblocked.detail.startswith("in slowdb.fetch, at ")
    else:
        assert unblocked.culprit_function == expected
        assert unblocked.culprit_filename.endswith("site-packages/slowdb/__init__.py")


def test_what_no_sample_saw_has_the_name_of_the_program_s_coroutine():
    """A step clock gives the watchdog no time to look. A server's coroutine around the program's is looked through."""
    with step_clock() as (clock, loop), Recorder() as events:

        async def route() -> None:
            clock.advance(0.2)
            await asyncio.sleep(0)

        loop.run_until_complete(route())
        events.wait_for(LoopUnblocked)
    [slow] = events.slow_callbacks
    assert not slow.culprit_seen
    assert slow.culprit_function == f"{__name__}.{route.__qualname__}"
    assert (slow.culprit_filename, slow.culprit_lineno) == (__file__, route.__code__.co_firstlineno)
    snapshot = loop.snapshot()
    assert list(snapshot[SLOW]) == [(slow.culprit_function,)]
    assert (slow.culprit_function,) in snapshot["asyncio.eventloop.callback.time"]  # the same name in both
    assert sum(snapshot[BLOCK_TIME].values()) == pytest.approx(0.2)


WRAPPERS = """
async def traced(coro):
    return await coro

class Cart:
    async def total(self, coro):
        return await traced(coro)
"""


def test_a_tracers_coroutine_around_the_programs_is_looked_through(tmp_path, monkeypatch):
    """Sentry, OpenTelemetry and greenback put coroutines around each task. No sample: the program's own one counts."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "tracer.py").write_text(WRAPPERS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "tracer", raising=False)
    tracer = import_module("tracer")
    with step_clock() as (clock, loop), Recorder() as events:

        async def order() -> None:
            await asyncio.sleep(0)
            clock.advance(0.2)
            await asyncio.sleep(0)

        loop.run_until_complete(tracer.Cart().total(order()))
    [slow] = events.slow_callbacks
    assert slow.name == "tracer.Cart.total"
    assert slow.culprit_function == f"{__name__}.{order.__qualname__}"


def test_a_block_without_any_callback_is_the_loops_own():
    """Time that passes in the poll's processing, not in a callback."""
    with step_clock() as (clock, loop), Recorder() as events:
        process = loop._process_events
        loop._process_events = lambda found: (clock.advance(0.3), process(found))
        loop.call_soon(loop.stop)
        loop.run_forever()
        spent = {labels[0]: s for labels, s in loop.snapshot()[BLOCK_TIME].items()}
    assert [event.culprit_function for event in events.slow_iterations] == ["(loop)"]
    assert spent == pytest.approx({"(loop)": 0.3})


def test_an_iteration_is_shared_out_among_its_slow_callbacks():
    """Two slow ones and a fast one: the whole iteration's time, in proportion."""
    with step_clock() as (clock, loop):

        def first() -> None:
            clock.advance(0.3)

        def second() -> None:
            clock.advance(0.1)

        def fast() -> None:
            clock.advance(0.04)

        for callback in (first, fast, second):
            loop.call_soon(callback)
        loop.stop()
        loop.run_forever()
        spent = {labels[0].rpartition(".")[2]: s for labels, s in loop.snapshot()[BLOCK_TIME].items()}
        assert spent == pytest.approx({"first": 0.33, "second": 0.11})
        longest = loop.snapshot()["asyncio.eventloop.block.longest"]
        assert {labels[0].rpartition(".")[2]: s for labels, s in longest.items()} == pytest.approx(spent)


def test_many_short_callbacks_share_the_blame():
    """No single callback is slow. The functions that took most of the iteration share its time."""
    with step_clock() as (clock, loop):

        def often() -> None:
            clock.advance(0.004)

        def seldom() -> None:
            clock.advance(0.004)

        for i in range(100):
            loop.call_soon(seldom if i % 50 == 0 else often)
        loop.stop()
        loop.run_forever()
        spent = {labels[0].rpartition(".")[2]: s for labels, s in loop.snapshot()[BLOCK_TIME].items()}
        assert sum(spent.values()) == pytest.approx(0.4)
        assert spent["often"] >= 0.35


def test_shares_add_up_and_are_bounded():
    """To the nanosecond, whatever the number of culprits."""
    blame = Blame()
    assert not blame
    for i in range(MAX_CULPRITS + 7):
        blame.add(Culprit(f"f{i}", "f.py", i, seen=True), "cpu", 1_000 + i)
    shares = blame.shares(1_234_567_891)
    assert len(shares) == MAX_CULPRITS
    assert sum(share.ns for share in shares) == 1_234_567_891
    assert shares[0].ns == max(share.ns for share in shares)
    assert Blame().shares(5) == []
    assert isinstance(shares[0], Share)


class Json(logging.Formatter):
    """What JSON formatters do: all fields of the record that logging does not set itself."""

    usual = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in vars(record).items() if key not in self.usual}
        return json.dumps({"message": record.getMessage(), **fields})


def test_the_log_record_carries_the_fields_for_json(tmp_path):
    """In OpenTelemetry's names, with the stack; and the next line says what was left out."""
    lines: list[dict] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(Json().format(record)))

    handler = Handler()
    logging.getLogger("obsloop").addHandler(handler)
    try:
        with Recorder() as events:
            settings = obsloop.Settings(name="json", log_slow_callbacks=True, unhealthy_after=600)

            async def main() -> None:
                export(0.2, events)

            obsloop.run(main(), settings=settings)
            until(lambda: lines)
    finally:
        logging.getLogger("obsloop").removeHandler(handler)
    [line] = [line for line in lines if line["asyncio.eventloop.block.duration"] >= 0.2]
    assert line["message"].startswith("event loop blocked 0.")
    assert line["code.function.name"] == f"{__name__}.export"
    assert line["code.file.path"] == __file__
    assert line["code.line.number"] > 0
    assert line["asyncio.eventloop.block.cause"] in obsloop.events.CAUSES
    assert line["asyncio.eventloop.name"] == "json"
    assert line["asyncio.task.name"].startswith("Task-")
    assert "in export" in line["code.stacktrace"]


def test_a_line_says_how_many_were_left_out(caplog):
    """One line per culprit in ten seconds, and then the number and the sum of the others."""
    with step_clock() as (clock, loop):
        settings = obsloop.Settings(watchdog=False, log_blocked_after=0.1)
        loop._obsloop.settings = settings

        def culprit() -> None:
            clock.advance(0.25)

        def once() -> None:
            loop.call_soon(culprit)
            loop.stop()
            loop.run_forever()

        with caplog.at_level(logging.WARNING, "obsloop"):
            for _ in range(4):
                once()
            log_time = log.clock.seconds
            try:
                log.clock.seconds = lambda: log_time() + 11
                once()
            finally:
                log.clock.seconds = log_time
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith("(3 more of its blocks, 0.75 s in sum, were not logged)")


def test_a_line_is_readable_where_logging_is_not_set_up(tmp_path):
    """logging's last resort writes the message to stderr: one line that names the culprit."""
    source = """
        import time, obsloop
        async def main():
            time.sleep(0.6)
        obsloop.run(main())
    """
    done = program(source, OBSLOOP_LOG_BLOCKED_AFTER="0.5", OBSLOOP_UNHEALTHY_AFTER="600")
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("event loop blocked 0.")
    assert "by __main__.main (<string>:" in line


def test_the_variable_sets_the_threshold_of_the_loop():
    """``OBSLOOP_SLOW_CALLBACK``; the program's own assignment wins later."""
    settings = obsloop.Settings.from_env({"OBSLOOP_SLOW_CALLBACK": "0.25"})
    loop = obsloop.new_event_loop(settings)
    try:
        assert loop.slow_callback_duration == 0.25
        loop.slow_callback_duration = 0.5
        assert loop.slow_callback_duration == 0.5
    finally:
        loop.close()
