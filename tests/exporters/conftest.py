"""What the exporters' tests share: an empty registry for each test, and figures that hold still."""

from collections.abc import Callable, Mapping

import pytest

import obsloop
from obsloop import Snapshot, instruments
from obsloop.metrics import registry
from obsloop.metrics.catalog import MAX_LOOP_NAMES
from tests.exporters.programs import everything, run

Figures = tuple[Mapping[str, Snapshot], Snapshot]
"""Those of the loops, and of the process."""


@pytest.fixture(autouse=True)
def metrics(monkeypatch) -> None:
    """No loop name from another test: there are at most eight in a process. `block` is a library's function.

    And no hook that a test before had disabled.
    """
    for hook in instruments.disabled:
        monkeypatch.setitem(instruments.disabled, hook, 0)
    monkeypatch.setenv("OBSLOOP_FOREIGN_PACKAGES", "tests.support")
    monkeypatch.setattr(registry, "_by_name", {})
    monkeypatch.setattr(registry, "_places", [None] * MAX_LOOP_NAMES)


@pytest.fixture
def freeze(monkeypatch) -> Callable[[], Figures]:
    """A function after which every reader sees the figures of that moment; it gives them, loops' and process's."""

    def now() -> Figures:
        loops, process = obsloop.snapshots(), obsloop.process_snapshot()
        monkeypatch.setattr(obsloop, "snapshots", lambda: loops)
        monkeypatch.setattr(obsloop, "process_snapshot", lambda: process)
        return loops, process

    return now


@pytest.fixture(scope="session")
def figures_of_everything() -> Figures:
    """The figures of a program that filled every metric, on a loop called `judged`. It runs once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_by_name", {})
        patch.setattr(registry, "_places", [None] * MAX_LOOP_NAMES)
        return run(everything(lambda: (obsloop.snapshots(), obsloop.process_snapshot())), name="judged")


@pytest.fixture
def filled(figures_of_everything, monkeypatch) -> Figures:
    """Every reader sees those figures, and nothing else."""
    loops, process = figures_of_everything
    monkeypatch.setattr(obsloop, "snapshots", lambda: loops)
    monkeypatch.setattr(obsloop, "process_snapshot", lambda: process)
    return figures_of_everything
