"""Each counter is written once, in the table of `metrics/counters.py`. The compiled core has the same ones."""

import pytest

from obsloop.metrics.counters import FIELDS, FINISHES, Counters
from obsloop.metrics.reading import read

from .support import BUILT

if BUILT:
    from obsloop.hotpath.compiled import core

KINDS = [Counters, *([core.Counters] if BUILT else [])]
NUMBERS = [field.name for field in FIELDS if "cells" not in field.metadata]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__module__)
def counters(request):
    return request.param()


def test_a_copy_has_every_number(counters):
    for value, name in enumerate(NUMBERS, 1000):
        setattr(counters, name, value)
    copy = counters.copy()
    assert [getattr(copy, name) for name in NUMBERS] == list(range(1000, 1000 + len(NUMBERS)))


def test_a_copy_has_every_cell_and_is_not_the_original(counters):
    copy = counters.copy()
    assert {field.name: len(getattr(copy, field.name)) for field in FIELDS if "cells" in field.metadata} == {
        field.name: field.metadata["cells"] for field in FIELDS if "cells" in field.metadata
    }
    counters.record_iteration(1_000_000)
    assert sum(copy.iteration) == 0
    assert sum(counters.copy().iteration) == 1


def test_a_forked_child_begins_at_zero(counters):
    for name in NUMBERS:
        setattr(counters, name, 0)
    for field in FIELDS:
        if field.metadata.get("reset"):
            setattr(counters, field.name, 7)
    counters.record_iteration(1_000_000)
    counters.finished(FINISHES.index("ok"), 5_000)
    counters.record(0, 0, 1_000)
    counters.tick_ns = 0
    counters.forked()
    copy = counters.copy()
    assert {name: value for name in NUMBERS if name != "state" and (value := getattr(copy, name))} == {}
    assert [field.name for field in FIELDS if "cells" in field.metadata and any(getattr(copy, field.name))] == []
    assert not read(counters).running
