"""The largest value of the last minutes, by label values that come from the program."""

import types

import pytest

from obsloop.metrics import labelled
from obsloop.metrics.catalog import MAX_SITES, OTHER

LONGEST = "asyncio.eventloop.block.longest"
SECOND = 1_000_000_000


@pytest.fixture
def step(monkeypatch):
    """A clock that stands still until it is set, in seconds."""
    now = {"seconds": 1_200.0}  # where a half begins
    monkeypatch.setattr(labelled, "clock", types.SimpleNamespace(REAL=lambda: int(now["seconds"] * SECOND)))

    def advance(seconds: float) -> None:
        now["seconds"] += seconds

    return advance


def longest(metrics: labelled.LabelledMetrics) -> dict[tuple[str, ...], float]:
    return metrics.collect()[LONGEST]


def test_the_longest_block_counts_for_two_minutes_at_least_and_four_at_most(step):
    """Whenever it ends, a reader that comes each two minutes sees it; afterwards the next one down counts."""
    metrics = labelled.LabelledMetrics()
    assert longest(metrics) == {}
    metrics.largest(LONGEST, 3 * SECOND, "shop.export")
    metrics.largest(LONGEST, SECOND, "shop.export")
    assert longest(metrics) == {("shop.export",): 3.0}
    step(120)
    metrics.largest(LONGEST, 2 * SECOND, "shop.export")
    assert longest(metrics) == {("shop.export",): 3.0}
    step(119.9)
    assert longest(metrics) == {("shop.export",): 3.0}
    step(0.2)
    assert longest(metrics) == {("shop.export",): 2.0}
    step(1_000)
    assert longest(metrics) == {("shop.export",): 0.0}


def test_functions_without_room_share_one_value(step):
    """As for counters: the first hundred are named, and what is folded is counted."""
    metrics = labelled.LabelledMetrics()
    for number in range(MAX_SITES + 3):
        metrics.largest(LONGEST, (number + 1) * SECOND, f"shop.f{number}")
    assert len(longest(metrics)) == MAX_SITES + 1
    assert longest(metrics)[(OTHER,)] == MAX_SITES + 3
    assert metrics.folded("code.function.name") == 3
