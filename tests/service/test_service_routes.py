"""What is served: /metrics through an exporter or without one, /healthz, the index."""

import json
from importlib.metadata import EntryPoint

import pytest

from obsloop.service import routes
from obsloop.service.messages import Request
from obsloop.service.pages import SAMPLING
from obsloop.service.routes import ROUTES, Options

OPTIONS = Options(unhealthy_after=1.0)


def ask(path, **headers):
    return ROUTES[path].handler(Request("GET", path, "", headers), OPTIONS)


@pytest.fixture(autouse=True)
def fresh_exporter(monkeypatch):
    """The exporter is made once per process: each test begins without."""
    monkeypatch.setattr(routes, "_exporter", None)


class StrangersExporter:
    """What somebody else may register under the same group."""

    def render(self, accept):
        return "text/strange", f"accepting {accept}".encode()


def entry(value):
    return EntryPoint(name="prometheus", value=value, group=routes.EXPORTERS)


def test_metrics_come_from_the_exporter_and_it_decides_on_the_format(monkeypatch):
    """The client's Accept header goes to the exporter as it came; its content type comes back."""
    monkeypatch.setattr(routes, "_entry_point", lambda name: entry(f"{__name__}:StrangersExporter"))
    response = ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert response.status == 200
    assert response.content_type == "text/strange"
    assert response.body == b"accepting application/openmetrics-text; version=1.0.0"
    assert ask("/metrics").body == b"accepting None"


def test_our_own_exporter_speaks_both_formats():
    """Found by its entry point, as installed."""
    pytest.importorskip("prometheus_client")
    assert ask("/metrics").content_type.startswith("text/plain")
    openmetrics = ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")


def test_without_prometheus_client_it_says_what_to_install(monkeypatch):
    """501: this server cannot do that, and the text says how it can."""
    monkeypatch.setattr(routes, "_entry_point", lambda name: entry("obsloop_no_such_module:Exporter"))
    response = ask("/metrics")
    assert response.status == 501
    assert b"No module named 'obsloop_no_such_module'" in response.body
    assert b'pip install "obsloop[prometheus]"' in response.body


def test_a_checkout_that_is_not_installed_says_so(monkeypatch):
    """No metadata, no entry points: the reason is not that something is missing from the package."""
    monkeypatch.setattr(routes, "_entry_point", lambda name: None)
    response = ask("/metrics")
    assert response.status == 501
    assert b"not from an installed package" in response.body
    assert b'pip install "obsloop[prometheus]"' in response.body


def test_a_missing_exporter_is_looked_for_again(monkeypatch):
    """The reason may have been a program half-way through its own imports."""
    monkeypatch.setattr(routes, "_entry_point", lambda name: entry("obsloop_no_such_module:Exporter"))
    assert ask("/metrics").status == 501
    monkeypatch.setattr(routes, "_entry_point", lambda name: entry(f"{__name__}:StrangersExporter"))
    assert ask("/metrics").status == 200


@pytest.mark.parametrize(
    ("loops", "status", "blocked"),
    [
        ({}, 200, {}),
        ({"main": 0.0}, 200, {}),
        ({"main": 0.99}, 200, {}),
        ({"main": 1.23456}, 503, {"main": 1.235}),
        ({"main": 0.0, "worker": 7.0}, 503, {"worker": 7.0}),
    ],
)
def test_health_is_whether_each_running_loop_moves_on(monkeypatch, loops, status, blocked):
    """503 names each running loop that is blocked and its seconds; a process without a running loop is not ill."""
    monkeypatch.setattr(routes.health, "running", lambda: {name: int(time * 1e9) for name, time in loops.items()})
    response = ask("/healthz")
    report = json.loads(response.body)
    assert response.status == status
    assert report["blocked_seconds"] == blocked
    assert report["status"] == ("blocked" if blocked else "ok")
    assert report["running"] == sorted(loops)


def test_the_index_links_to_everything_that_is_served():
    """From the one table of routes, so that a new route is on it by itself."""
    page = ask("/", accept="text/html").body.decode()
    for path in ROUTES:
        assert path in ("/", SAMPLING) or f'<a href="{path}">' in page
    assert f'<a href="{SAMPLING}?seconds=30">' in ask("/debug/pprof/", accept="text/html").body.decode()
