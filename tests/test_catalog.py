"""The catalogue is the list of what there is: what is in it is measured, and nothing else is."""

import re

import pytest

import obsloop
from obsloop import SIGNALS, Histogram

from .support import KINDS, STATES, run_briefly

DERIVED = {"asyncio.eventloop.utilization"}
"""What a reader makes from two snapshots, so that it is since the last reading of that reader."""

NAMES = {signal.name for signal in SIGNALS}


@pytest.fixture
def figures(clean_ledger) -> dict[str, obsloop.Snapshot]:
    """A snapshot of each scope."""
    loop = obsloop.Loop()
    run_briefly(loop)
    snapshot = loop.snapshot()
    loop.close()
    return {"loop": snapshot, "process": obsloop.process_snapshot()}


def test_names_are_unique_and_well_formed():
    """Dotted words in lower case, in one of our three name spaces or OpenTelemetry's own for look-ups."""
    assert len(NAMES) == len(SIGNALS)
    for signal in SIGNALS:
        assert re.fullmatch(r"(asyncio|cpython|dns|obsloop)(\.[a-z]+(_[a-z]+)*)+", signal.name), signal.name
        labels = [label.name for label in signal.labels]
        assert len(labels) == len(set(labels))
        assert obsloop.LOOP_NAME_LABEL not in labels, "every signal of a loop has it already"


def test_every_signal_says_what_it_is():
    """Kind, unit and scope are of the known ones; the help is a sentence."""
    for signal in SIGNALS:
        assert signal.kind in {"counter", "updowncounter", "gauge", "histogram"}
        assert signal.scope in {"loop", "process"}
        assert re.fullmatch(r"s|1|By|\{[a-z]+\}", signal.unit), signal.unit
        assert signal.help[0].isupper()
        assert signal.help.endswith(".")
        assert "\n" not in signal.help


def test_buckets_are_bounds_that_can_be_exact():
    """Every histogram has its own, ascending; a tenth of a second and a second are in each of times."""
    for signal in SIGNALS:
        assert bool(signal.buckets) == (signal.kind == "histogram"), signal.name
        assert set(signal.buckets) <= set(signal.bounds), signal.name
        assert list(signal.buckets) == sorted(set(signal.buckets)), signal.name
        if signal.buckets and signal.unit == "s":
            assert {0.1, 1.0} <= set(signal.buckets), signal.name


def test_label_values_are_unique_and_bounded():
    """A label holds all its values, at most a hundred."""
    for signal in SIGNALS:
        for label in signal.labels:
            assert 0 < (len(label.values) or label.bound) <= 100
            assert not (label.values and label.bound)
            assert len(set(label.values)) == len(label.values)


def test_states_and_kinds_are_those_of_the_design():
    """Five states, eight ways onto the loop."""
    by_name = {signal.name: signal for signal in SIGNALS}
    assert set(by_name["asyncio.eventloop.time"].labels[0].values) == set(STATES)
    for name in ("asyncio.eventloop.schedule.delay", "asyncio.eventloop.callback.duration"):
        assert set(by_name[name].labels[0].values) == set(KINDS)


@pytest.mark.parametrize("scope", ["loop", "process"])
def test_every_signal_is_in_a_snapshot_and_every_figure_in_the_catalogue(figures, scope):
    """Both ways: what is listed is measured, what is measured is listed."""
    listed = {signal.name for signal in SIGNALS if signal.scope == scope}
    assert set(figures[scope].data) == listed - DERIVED
    assert DERIVED <= NAMES


@pytest.mark.parametrize("signal", [s for s in SIGNALS if s.name not in DERIVED], ids=lambda s: s.name)
def test_a_signals_points_have_its_kind_and_all_its_label_values(figures, signal):
    """Every combination of label values is there from the beginning, at zero; histograms where it says histogram."""
    points = figures[signal.scope][signal.name]
    for labels, value in points.items():
        assert len(labels) == len(signal.labels)
        assert isinstance(value, Histogram) == (signal.kind == "histogram")
        if signal.kind == "histogram":
            assert value.partition.units == (10**9 if signal.unit == "s" else 1)
    if any(label.bound for label in signal.labels):
        return  # values come from the program: nothing is there before something happened
    for i, label in enumerate(signal.labels):
        assert {labels[i] for labels in points} == set(label.values)
    expected = 1
    for label in signal.labels:
        expected *= len(label.values)
    assert len(points) == expected


def test_utilization_is_derived_by_the_reader(figures):
    """It is no figure of a snapshot but made from two of them."""
    with pytest.raises(KeyError, match=r"asyncio\.eventloop\.utilization"):
        figures["loop"]["asyncio.eventloop.utilization"]
    assert 0 <= figures["loop"].utilization() <= 1
