"""What the exporters' tests share: an empty ledger for each test, and figures that hold still."""

from collections.abc import Callable, Mapping

import pytest

import obsloop
from obsloop import Snapshot, _ledger
from obsloop._catalog import MAX_LOOP_NAMES


@pytest.fixture(autouse=True)
def ledgers(monkeypatch) -> None:
    """No loop name from another test: there are at most eight in a process."""
    monkeypatch.setattr(_ledger, "_ledgers", {})
    monkeypatch.setattr(_ledger, "_places", [None] * MAX_LOOP_NAMES)


@pytest.fixture
def freeze(monkeypatch) -> Callable[[], tuple[Mapping[str, Snapshot], Snapshot]]:
    """A function after which every reader sees the figures of that moment; it gives them, loops' and process's."""

    def now() -> tuple[Mapping[str, Snapshot], Snapshot]:
        loops, process = obsloop.snapshots(), obsloop.process_snapshot()
        monkeypatch.setattr(obsloop, "snapshots", lambda: loops)
        monkeypatch.setattr(obsloop, "process_snapshot", lambda: process)
        return loops, process

    return now
