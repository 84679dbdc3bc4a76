"""The pictures are there and small, and the tool that draws them knows all that the dashboards have.

To draw takes a browser, and minutes: `make pictures`. What it decides about panels is plain Python, and held here.
"""

import json
import re
from pathlib import Path

import pytest

from obsloop import METRICS

ROOT = Path(__file__).resolve().parents[2]
BOARDS = sorted((ROOT / "dashboards" / "generated").glob("obsloop-*.json"))
PICTURES = [ROOT / "dashboards" / "pictures" / f"overview-{mode}.png" for mode in ("dark", "light")]
PANELS = [
    panel
    for path in BOARDS
    for row in json.loads(path.read_text())["panels"]
    for panel in (row, *row.get("panels", ()))
    if panel["type"] != "row"
]


@pytest.fixture
def mapping(monkeypatch):
    """The tool's module, which is in a folder of a script's and no package."""
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "pictures"))
    import mapping

    return mapping


@pytest.fixture
def window(mapping):
    """Five points, a second from one another."""
    return mapping.Window(1000, 1004, 1, 15)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_in_the_readme(path):
    """A PNG of the width that the README has room for, of fewer than 150,000 bytes."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 1200
    assert len(data) < 150_000
    assert path.relative_to(ROOT).as_posix() in (ROOT / "README.md").read_text()


def test_every_panel_can_be_drawn(mapping, window):
    """No type, unit, colour, column or variable of the dashboards is unknown; and each query is asked."""
    asked = []

    def ask(query, instant):
        asked.append(query)
        return []

    drawn = [
        panel for path in BOARDS for row in mapping.rows(json.loads(path.read_text()), window, ask)
        for panel in row["panels"]
    ]  # fmt: skip
    assert [panel["title"] for panel in drawn] == [panel["title"] for panel in PANELS]
    assert len(asked) == sum(len(panel["targets"]) for panel in PANELS)
    assert "$" not in "".join(asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda panel: panel.update(type="gauge"), "gauge"),
        (lambda panel: panel["fieldConfig"]["defaults"].update(unit="parsec"), "parsec"),
        (lambda panel: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(color="mauve"), "mauve"),
        (lambda panel: panel["targets"][0].update(expr="up{job=~'$shop'}"), "shop"),
    ],
)
def test_what_is_unknown_is_said(mapping, window, change, said):
    """With its name, so that it is added and not left out of the pictures."""
    panel = json.loads(json.dumps(next(panel for panel in PANELS if panel["type"] == "stat")))
    change(panel)
    with pytest.raises(mapping.UnknownError, match=said):
        mapping.drawn(panel, window, lambda query, instant: [])


def test_series_keep_their_values_and_their_colours(mapping, window):
    """Names as the legend has them; what is no number is a gap; the colour goes with the name, wherever that comes."""
    panel = next(panel for panel in PANELS if panel["title"] == "Jobs of executors by outcome")
    answer = [{"metric": {"outcome": outcome}, "values": [[1000, "1.5"], [1001, "NaN"]]} for outcome in ("ok", "error")]
    drawn = mapping.drawn(panel, window, lambda query, instant: answer)
    (error,), (ok,) = drawn["results"]
    assert (error["formattedName"], ok["formattedName"]) == ("error", "ok")
    assert ok["values"] == [[1_000_000, 1.5], [1_001_000, None]]
    colours = {item["queryIndex"]: item["colorValue"] for item in drawn["spec"]["querySettings"]}
    assert colours == {0: mapping.COLOURS["red"], 1: mapping.COLOURS["green"]}


@pytest.mark.parametrize("beyond", [False, True])
def test_buckets_become_cells(mapping, window, beyond):
    """Of cumulative buckets what each has for itself; bounds that nothing comes to are left out at both ends."""
    counts = {"0.1": 0, "0.5": 2, "1.0": 2, "5.0": 5, "+Inf": int(beyond) + 5}
    answer = [{"metric": {"le": le}, "values": [[1002, str(count)]]} for le, count in counts.items()]
    heat = mapping.heat(answer, window)
    assert heat["bounds"] == [0.5, 1.0, 5.0] + [None] * beyond  # JSON has no infinity
    assert heat["cells"] == [[2, 0, 2.0], [2, 2, 3.0]] + [[2, 3, 1.0]] * beyond


def test_colours_are_of_values_that_there_are():
    """A series that has a colour of its own is one that the catalogue's labels have."""
    values = {value for metric in METRICS for label in metric.labels for value in label.values}
    named = {
        override["matcher"]["options"] for panel in PANELS for override in panel["fieldConfig"]["overrides"]
        if override["properties"][0]["id"] == "color"
    }  # fmt: skip
    assert named
    assert named <= values


def test_what_draws_is_pinned():
    """Exact versions, each with its hash; from whichever registry is there."""
    folder = ROOT / "tools" / "pictures"
    for version in json.loads((folder / "package.json").read_text())["dependencies"].values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
