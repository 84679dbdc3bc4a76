"""Each client's program runs on the stock loop and on ours: where both fail, the client or its server is to blame.

The servers are real ones (`servers.py`), one for each file of tests. After a program has run on our loop, its books
must balance, whatever it did (`figures.py`).
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

import obsloop

from . import servers
from .figures import Figures, assert_the_books_balance

T = TypeVar("T")
NAME = "client"


class Program:
    """Runs coroutines one after another on a loop of one kind, through `asyncio.Runner`, as a program does."""

    def __init__(self, kind: str) -> None:
        self.observed = kind == "obsloop"
        self._took = 0.0
        self._runner = asyncio.Runner(loop_factory=self._new_loop)

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        if not self.observed:
            return asyncio.SelectorEventLoop()
        return obsloop.Loop(settings=obsloop.Settings(name=NAME))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """What `main` returns."""
        began = time.monotonic()
        try:
            return self._runner.run(main)
        finally:
            self._took += time.monotonic() - began

    def end(self) -> None:
        """Close the loop. More than once does nothing."""
        began = time.monotonic()
        self._runner.close()
        self._took += time.monotonic() - began

    @property
    def figures(self) -> Figures | None:
        """The observed loop's figures after its end; None on the stock loop, which has none."""
        self.end()
        return Figures(obsloop.snapshots()[NAME]) if self.observed else None

    def check(self) -> None:
        """The books of an observed loop balance. Nothing was dropped but lints: on a busy machine many tasks wait."""
        figures = self.figures
        if figures is not None:
            assert_the_books_balance(figures, self._took)
            dropped = {what for (what,), n in obsloop.process_snapshot()["obsloop.dropped"].items() if n}
            assert dropped <= {"task_lint"}


@pytest.fixture
def program(loop_kind, clean_metrics) -> Iterator[Program]:
    """Where a client's program runs: on the stock loop, then on ours."""
    made = Program(loop_kind)
    try:
        yield made
        made.check()
    finally:
        made.end()


@pytest.fixture(scope="module")
def postgresql() -> Iterator[servers.Address]:
    """A PostgreSQL for a file of tests."""
    with servers.postgresql() as address:
        yield address


@pytest.fixture(scope="module")
def redis_server() -> Iterator[servers.Address]:
    """A Redis for a file of tests."""
    with servers.redis() as address:
        yield address
