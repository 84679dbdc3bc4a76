"""The text formats: what prometheus_client would write, to the byte, for whatever is asked and whatever names hold."""

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import obsloop
from obsloop_exporters import _families
from obsloop_exporters.prometheus import Collector, Exporter
from tests.exporters.programs import little, run, run_in_thread

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
ACCEPTS = [
    "", "*/*", "text/html", "text/plain", "text/plain; version=0.0.4", "text/plain; version=1.0.0",
    "text/plain; version=1.0.0; escaping=values", "application/openmetrics-text", OPENMETRICS,
    f"{OPENMETRICS}; escaping=underscores", f"{OPENMETRICS}; escaping=allow-utf-8",
    PROMETHEUS_2, PROMETHEUS_3,
]  # fmt: skip

# Settings take any printable name of up to 100 characters, threads take any name at all.
NAMES = [
    'say "hello"', "back\\slash", "\\n is no newline", 'both \\" of them', "größe ⏱ 時間 🦔", "{le=}", "a,b=c", "#",
    "x" * 100,
]  # fmt: skip
THREAD_NAMES = ["two\nlines", "tab\tand\rreturn", "\x85\u2028", "nul\0nul"]


def registry() -> CollectorRegistry:
    """A registry with one collector of ours: the reference is what prometheus_client makes of it."""
    made = CollectorRegistry()
    made.register(Collector())
    return made


@pytest.mark.parametrize("accept", ACCEPTS)
def test_the_exporter_answers_as_prometheus_client_would(filled, accept):
    """Content type and body, byte by byte, for everything a client may accept."""
    encoder, content_type = choose_encoder(accept)
    answer = Exporter().render(accept)
    assert answer[0] == content_type
    assert answer[1].decode().splitlines() == encoder(registry()).decode().splitlines()
    assert answer[1] == encoder(registry())


@pytest.mark.parametrize("escaping", [None, "underscores", "allow-utf-8", "values", "dots", "nonsense", "dots\r\nX: y"])
@pytest.mark.parametrize("media", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", [None, "0.0.1", "0.0.4", "1.0.0", "1.0.1", "2.0.0", "99"])
def test_each_page_that_is_announced_can_be_read(media, version, escaping):
    """Whatever is asked for: prometheus_client's own parser takes the page, and the names in it are ours.

    With `dots`, and with `values` in some versions, prometheus_client writes pages that its own parser refuses.
    """
    run(little)
    accept = media + (f"; version={version}" if version else "") + (f"; escaping={escaping}" if escaping else "")
    content_type, body = Exporter().render(accept)
    assert "dots" not in content_type
    assert "\n" not in content_type
    parse = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_text
    kinds = {family.name: family.type for family in parse(body.decode())}
    assert kinds["asyncio_eventloop_schedule_delay_seconds"] == "histogram"
    assert kinds["asyncio_eventloop_time_seconds"] == "counter"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/openmetrics-text; version=2.0.0, text/plain; version=1.0.0", "text/plain; version=1.0.0"),
        ("text/plain; q=0.2, application/openmetrics-text; version=1.0.0; q=0.9", "application/openmetrics-text"),
        ("application/openmetrics-text; version=1.0.0; q=0.1, text/plain; version=0.0.4", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; q=0, */*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; q=nan", "text/plain; version=0.0.4"),
    ],
)
def test_the_choice_that_the_client_likes_best_of_those_that_are_written_here(accept, expected):
    """Weights count, in any order; a version that is not written here is passed over for the next choice."""
    assert Exporter().render(accept)[0].startswith(expected)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_written_as_prometheus_client_would(freeze, name):
    """Quotes, backslashes, what looks like syntax, and what is no ASCII."""
    run(little, name)
    freeze()
    for accept in ("", OPENMETRICS):
        assert Exporter().render(accept)[1] == choose_encoder(accept)[0](registry())


@pytest.mark.parametrize("name", [*NAMES, *THREAD_NAMES])
@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_a_name_comes_back_from_the_parser_as_it_was(name, accept, parse):
    """Escaped where it must be and nowhere else, in both formats; of a thread's name only what prints is kept."""
    run_in_thread(little, name)
    families = parse(Exporter().render(accept)[1].decode())
    found = {s.labels.get("asyncio_eventloop_name") for family in families for s in family.samples}
    assert found == {"".join(c if c.isprintable() else "?" for c in name), None}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_a_name_that_cannot_be_encoded_costs_no_scrape(accept):
    """A lone surrogate in a thread's name would cost the program its whole /metrics."""
    run_in_thread(little, "half \udc80 pair")
    parse = parse_openmetrics if accept else parse_text
    for body in (Exporter().render(accept)[1], choose_encoder(accept)[0](registry())):
        families = parse(body.decode())
        names = {s.labels.get("asyncio_eventloop_name") for family in families for s in family.samples}
        assert names == {"half ? pair", None}


@pytest.mark.parametrize(("accept", "parse"), [(None, parse_text), (OPENMETRICS, parse_openmetrics)])
def test_both_parsers_find_the_same_figures_as_the_collector(filled, accept, parse):
    """Nothing is lost or rounded on the way through the text."""
    families = parse(Exporter().render(accept)[1].decode())
    found = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
    meant = {
        (s.name, frozenset(s.labels.items())): float(s.value)
        for metric in Collector().collect()
        for s in metric.samples
    }
    assert found == meant


def test_large_numbers_and_odd_ones(monkeypatch, freeze):
    """Counts past a million are written with an exponent, as Go does; not-a-number and infinity have their words."""
    run(little)
    (snapshot,) = freeze()[0].values()
    for value in (12_345_678, 10**18, 0.1, 1e-9, float("nan"), float("inf"), -1):
        data = dict(snapshot.data) | {"asyncio.eventloop.timer.count": {(): value}}
        monkeypatch.setattr(
            obsloop, "snapshots", lambda data=data: {"main": obsloop.Snapshot("main", False, 0.0, data)}
        )
        for accept in ("", OPENMETRICS):
            assert Exporter().render(accept)[1] == choose_encoder(accept)[0](registry())


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_metrics_that_are_yet_to_come(monkeypatch, accept):
    """Labels before and after `le`, none at all, and a help text with all that needs escaping."""
    some = obsloop.process_snapshot().histogram("cpython.gc.pause.duration", "0")
    executor, outcome = obsloop.Label("executor", ("a",)), obsloop.Label("outcome", ("ok",))
    metrics = {
        obsloop.Metric("a", "histogram", "s", 'Say "hi",\nC:\\new.', (outcome, executor), "process", buckets=(0.01,)): (
            "o",
            'e"',
        ),
        obsloop.Metric("b", "histogram", "s", "No labels.", (), "process"): (),
        obsloop.Metric("c", "histogram", "s", "One after.", (outcome,), "process"): ("ok",),
        obsloop.Metric("d", "counter", "{x}", 'A "number".', (), "process"): (),
    }
    data = {s.name: {values: some if s.kind == "histogram" else 3} for s, values in metrics.items()}
    monkeypatch.setattr(_families, "METRICS", tuple(metrics))
    monkeypatch.setattr(obsloop, "process_snapshot", lambda: obsloop.Snapshot("", False, 0.0, data))
    body = Exporter().render(accept)[1]
    assert body == choose_encoder(accept)[0](registry())
    assert b'a_seconds_bucket{executor="e\\"",le="0.01",outcome="o"} ' in body


@pytest.mark.parametrize("accept", [None, "", "application/openmetrics-text; version=", "text/plain; version=x.y"])
def test_without_a_wish_it_is_the_format_that_everyone_reads(accept):
    """No Accept header, or one that says nothing."""
    content_type, body = Exporter().render(accept)
    assert content_type.split(";")[0] in ("text/plain", "application/openmetrics-text")
    assert body.startswith(b"# HELP asyncio_eventloop_time_seconds")


@pytest.mark.parametrize("media", ["text/plain", "application/openmetrics-text"])
def test_a_version_that_is_no_version_is_answered(media):
    """A client's nonsense, over which prometheus_client stumbles, gets a format and not an error."""
    content_type, body = Exporter().render(f"{media}; version=abc")
    assert content_type.startswith("application/openmetrics-text") == body.endswith(b"# EOF\n")
    assert b"# HELP asyncio_eventloop_time_seconds" in body
