"""The catalogue is the list of what there is: what is in it is measured, and nothing else is."""

import re

import pytest

import obsloop
from obsloop import METRICS, Histogram
from tests.support import KINDS, STATES, run_briefly

DERIVED = {"asyncio.eventloop.utilization"}
"""What a reader makes from two snapshots, so that it is since the last reading of that reader."""

NAMES = {metric.name for metric in METRICS}


@pytest.fixture
def figures(clean_metrics) -> dict[str, obsloop.Snapshot]:
    """A snapshot of each scope."""
    loop = obsloop.Loop()
    run_briefly(loop)
    snapshot = loop.snapshot()
    loop.close()
    return {"loop": snapshot, "process": obsloop.process_snapshot()}


def test_names_are_unique_and_well_formed():
    """Dotted words in lower case, in one of our three name spaces or OpenTelemetry's own for look-ups."""
    assert len(NAMES) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"(asyncio|cpython|dns|obsloop)(\.[a-z]+(_[a-z]+)*)+", metric.name), metric.name
        labels = [label.name for label in metric.labels]
        assert len(labels) == len(set(labels))
        assert obsloop.LOOP_NAME_LABEL not in labels, "every metric of a loop has it already"


def test_every_metric_says_what_it_is():
    """Kind, unit and scope are of the known ones; the help is a sentence."""
    for metric in METRICS:
        assert metric.kind in {"counter", "updowncounter", "gauge", "histogram"}
        assert metric.scope in {"loop", "process"}
        assert re.fullmatch(r"s|1|By|\{[a-z]+\}", metric.unit), metric.unit
        assert metric.help[0].isupper()
        assert metric.help.endswith(".")
        assert "\n" not in metric.help


def test_buckets_are_bounds_that_can_be_exact():
    """Every histogram has its own, ascending; a tenth of a second and a second are in each of times."""
    for metric in METRICS:
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert set(metric.buckets) <= set(metric.bounds), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        if metric.buckets and metric.unit == "s":
            assert {0.1, 1.0} <= set(metric.buckets), metric.name


def test_label_values_are_unique_and_bounded():
    """A label holds all its values, at most a hundred."""
    for metric in METRICS:
        for label in metric.labels:
            assert 0 < (len(label.values) or label.bound) <= 100
            assert not (label.values and label.bound)
            assert len(set(label.values)) == len(label.values)


def test_states_and_kinds_are_those_of_the_design():
    """Five states, eight ways onto the loop."""
    by_name = {metric.name: metric for metric in METRICS}
    assert set(by_name["asyncio.eventloop.time"].labels[0].values) == set(STATES)
    for name in ("asyncio.eventloop.schedule.delay", "asyncio.eventloop.callback.duration"):
        assert set(by_name[name].labels[0].values) == set(KINDS)


@pytest.mark.parametrize("scope", ["loop", "process"])
def test_every_metric_is_in_a_snapshot_and_every_figure_in_the_catalogue(figures, scope):
    """Both ways: what is listed is measured, what is measured is listed."""
    listed = {metric.name for metric in METRICS if metric.scope == scope}
    assert set(figures[scope].data) == listed - DERIVED
    assert DERIVED <= NAMES


@pytest.mark.parametrize("metric", [s for s in METRICS if s.name not in DERIVED], ids=lambda s: s.name)
def test_a_metrics_points_have_its_kind_and_all_its_label_values(figures, metric):
    """Every combination of label values is there from the beginning, at zero; histograms where it says histogram."""
    points = figures[metric.scope][metric.name]
    for labels, value in points.items():
        assert len(labels) == len(metric.labels)
        assert isinstance(value, Histogram) == (metric.kind == "histogram")
        if metric.kind == "histogram":
            assert value.partition.units == (10**9 if metric.unit == "s" else 1)
    if any(label.bound for label in metric.labels):
        return  # values come from the program: nothing is there before something happened
    for i, label in enumerate(metric.labels):
        assert {labels[i] for labels in points} == set(label.values)
    expected = 1
    for label in metric.labels:
        expected *= len(label.values)
    assert len(points) == expected


def test_utilization_is_derived_by_the_reader(figures):
    """It is no figure of a snapshot but made from two of them."""
    with pytest.raises(KeyError, match=r"asyncio\.eventloop\.utilization"):
        figures["loop"]["asyncio.eventloop.utilization"]
    assert 0 <= figures["loop"].utilization() <= 1
