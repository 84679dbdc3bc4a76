"""What is committed is what would be made, nothing in it is unknown or unused, and promtool agrees."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import obsloop
from tests.parts import needed

DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"
GENERATED = DASHBOARDS / "generated"
BOARDS = sorted(GENERATED.glob("*.json"))


@pytest.fixture
def modules(monkeypatch):
    """The modules of dashboards/, which is a folder of a script's and no package."""
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    import alert_tests
    import alerts
    import queries

    return alerts, alert_tests, queries


def all_panels(board: dict) -> list[dict]:
    """The dashboard's rows and panels, those of closed rows too."""
    return [one for panel in board["panels"] for one in (panel, *panel.get("panels", ()))]


def assert_apart(panels: list[dict]) -> None:
    """Each panel has a place within the width, and no other panel has it."""
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns = range(place["x"], place["x"] + place["w"])
        mine = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not mine & taken, panel["title"]
        taken |= mine


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DASHBOARDS / "build.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def promtool(*arguments: str) -> str:
    """What promtool says; it must be content."""
    command = needed("promtool", "prometheus")
    done = subprocess.run(
        [command, *arguments], cwd=GENERATED, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_committed_files_are_fresh():
    """`--check` is content with what is committed."""
    done = build("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_file_is_named(tmp_path):
    """A changed, a missing and a foreign file are each told, and nothing is written."""
    assert build("--out", str(tmp_path)).returncode == 0
    (tmp_path / "rules.yaml").write_text("groups: []\n")
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "left-over.json").write_text("{}")
    done = build("--check", "--out", str(tmp_path))
    assert done.returncode == 1
    for name in ("rules.yaml", "metrics.md", "left-over.json"):
        assert f"{name};" in done.stderr
    assert (tmp_path / "rules.yaml").read_text() == "groups: []\n"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("<asyncio.eventloop.nonsense>", "asyncio.eventloop.nonsense is not in obsloop/metrics/catalog.py"),
        ("<asyncio.eventloop.time:bucket>", "is a counter"),
        ("<asyncio.eventloop.schedule.delay>", "is a histogram"),
        ('<asyncio.eventloop.time|kind="timer">', "matches no label"),
        ("sum by (kind) (<asyncio.eventloop.time>)", "grouped by 'kind'"),
    ],
)
def test_a_query_cannot_name_what_nobody_measures(modules, query, said):
    """Names, parts, matchers and groupings are held against the catalogue."""
    _, _, queries = modules
    with pytest.raises(queries.QueryError, match=re.escape(said)):
        queries.promql(query)


def test_every_metric_is_on_a_dashboard_and_in_the_reference(modules):
    """What is measured can be looked at."""
    _, _, queries = modules
    shown = " ".join(path.read_text() for path in BOARDS)
    page = (GENERATED / "metrics.md").read_text()
    for metric in obsloop.METRICS:
        part = "bucket" if metric.kind == "histogram" else ""
        assert queries.metric(metric.name, part) in shown, metric.name
        assert f"## {metric.name}\n" in page


def test_alerts_have_their_metrics_at_either_level(modules):
    """Also those of the rules that alerts use. A counter is there before its first event if an alert has its rate."""
    alerts, _, queries = modules
    import rules

    own = {metric.name: metric for metric in obsloop.METRICS}
    by_series = {queries.metric(name, part): name for name, one in queries.known().items()
                 for part in queries.PARTS[one.type]}  # fmt: skip
    recorded = {rule["record"]: rule["expr"] for group in rules.groups() for rule in group["rules"]}
    used, rated = set(), set()
    for alert in alerts.ALERTS:
        expressions = [alert.rule()["expr"]]
        expressions += [expr for record, expr in recorded.items() if record in expressions[0]]
        for expr in expressions:
            used |= {name for series, name in by_series.items() if re.search(rf"\b{series}\b", expr)}
            rated |= {name for series, name in by_series.items() if re.search(rf"(rate|increase)\({series}\b", expr)}
    assert len(used) > 10
    assert [name for name in sorted(used) if own[name].level != "basic"] == []
    assert rated >= {"asyncio.eventloop.time", "obsloop.dropped"}
    # A histogram is compared with itself only, and a label value that comes from the program is not known before.
    counters = [own[name] for name in rated if own[name].kind == "counter" and own[name].labels]
    fixed = {metric.name for metric in counters if not any(label.bound for label in metric.labels)}
    assert fixed == {metric.name for metric in obsloop.METRICS if metric.from_start}


def test_the_first_row_has_its_metrics_at_either_level(modules):
    """The question "is the loop healthy?" is answered for each worker of a large fleet too."""
    _, _, queries = modules
    import overview

    row = overview.ROWS[0]
    assert [panel.title for panel in row.panels if any(queries.needs_full(query) for query, _ in panel.queries)] == []


def test_dashboards_can_be_provisioned():
    """A stable uid, no `__inputs`, data source and targets by variable, each panel with an id and its own place."""
    assert [json.loads(path.read_text())["uid"] for path in BOARDS] == [path.stem for path in BOARDS]
    for path in BOARDS:
        board = json.loads(path.read_text())
        assert "__inputs" not in board
        assert "id" not in board
        names = [variable["name"] for variable in board["templating"]["list"]]
        assert names == ["datasource", "traces", "job", "instance", "loop"]
        panels = all_panels(board)
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert_apart(board["panels"])  # the closed rows have one line each
        for row in board["panels"]:
            assert_apart([row, *row.get("panels", ())])
        for panel in panels:
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == "${datasource}"
                assert all('job=~"$job",instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_the_first_screen_answers_what_users_feel():
    """Eight panels and all other rows, closed, on 1920 x 1080: what Grafana's bars leave has 24 lines of its grid."""
    board = json.loads((GENERATED / "obsloop-overview.json").read_text())
    first, *panels = [panel for panel in board["panels"] if panel["type"] != "row" or not panel["collapsed"]]
    assert first["type"] == "row"
    assert len(panels) == 8
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) <= 24
    titles = [panel["title"] for panel in panels]
    assert titles[:5] == ["Time blocked", "Lag, p99", "Utilization", "Blocked now", "Top culprits"]
    closed = [panel for panel in board["panels"] if panel.get("collapsed")]
    assert [row["title"] for row in closed if not row["panels"]] == []
    culprits = panels[4]["transformations"][-1]["options"]["renameByName"]
    assert list(culprits.values()) == ["Function", "Seconds", "Times", "Worst"]


def test_every_line_of_an_instance_links_to_its_own_page():
    """Also in closed rows. The instance is the address that Prometheus scrapes, which serves people too."""
    linked = 0
    for path in BOARDS:
        for panel in all_panels(json.loads(path.read_text())):
            legends = " ".join(target["legendFormat"] for target in panel.get("targets", ()))
            urls = [link["url"] for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", ())]
            assert urls == (["http://${__field.labels.instance}/"] if "{{instance}}" in legends else []), panel["title"]
            linked += len(urls)
    assert linked > 10


def test_every_alert_has_an_entry_in_the_runbook_and_two_tests(modules):
    """Anchors are there, in both directions; links of panels lead to them too."""
    alerts, alert_tests, _ = modules
    text = (DASHBOARDS / "runbook.md").read_text()
    entries = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert entries == [alert.name for alert in alerts.ALERTS]
    assert list(alert_tests.CASES) == entries
    for entry in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for part in ("What it means", "How to look", "What usually causes it", "What to do"):
            assert f"**{part}.**" in entry
    anchors = {entry.lower() for entry in entries}
    linked = re.findall(r"runbook\.md#(\w+)", " ".join(path.read_text() for path in GENERATED.iterdir()))
    assert set(linked) == anchors
    assert set(re.findall(r"\(#(\w+)\)", text)) <= anchors


@pytest.mark.once
def test_promtool_takes_the_rules():
    """Names, expressions, templates."""
    assert "FAILED" not in promtool("check", "rules", "rules.yaml", "alerts.yaml")


@pytest.mark.once
def test_alerts_are_silent_just_below_and_firing_just_above_their_thresholds():
    """Two per cent on either side, from the configuration's own figures."""
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")
