"""Map Grafana's panels to Perses's: their queries, and the properties of Perses's components.

Everything about a panel is decided here, from the committed JSON and Prometheus' answers; the page only passes it on. A
type, a unit or a colour that is not known here is an error. A test checks all that the dashboards use.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

Json = dict[str, Any]

# Grafana's unit -> Perses's format. Perses's shortest unit of time is the millisecond.
UNITS: dict[str, Json] = {
    "s": {"unit": "seconds"},
    "percentunit": {"unit": "percent-decimal"},
    "cps": {"unit": "counts/sec"},
    "Bps": {"unit": "bytes/sec"},
    "bytes": {"unit": "bytes"},
    "short": {"unit": "decimal"},
}
# Grafana's names of colours in thresholds and overrides.
COLOURS = {
    "green": "#73BF69", "red": "#F2495C", "orange": "#FF9830",
    "yellow": "#FADE2A", "blue": "#5794F2", "purple": "#B877D9",
}  # fmt: skip
_LEGEND_LABEL = re.compile(r"{{\s*(\w+)\s*}}")


class UnknownError(ValueError):
    """A panel cannot be drawn. The message says why, and where to add what is missing."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time range and step that are shown, in seconds (since the epoch)."""

    start: int
    end: int
    step: int
    rate_interval: int

    def fill_in(self, query: str) -> str:
        """Fill in the variables of Grafana in a panel's query, so that they match everything."""
        for name, value in (
            ("$__rate_interval", f"{self.rate_interval}s"),
            ("$__range", f"{self.end - self.start}s"),
            ("$job", ".*"),
            ("$instance", ".*"),
            ("$loop", ".*"),
        ):
            query = query.replace(name, value)
        if "$" in query:
            raise UnknownError(f"a variable is left in {query!r}; add it to tools/pictures/mapping.py")
        return query

    @property
    def times(self) -> range:
        """The times at which there may be a point."""
        return range(self.start, self.end + 1, self.step)


Ask = Callable[[str, bool], list[Json]]
"""Return Prometheus' answer to a query (the list called `result`), over the window; with `instant`, at its end."""


def rows(board: Json, window: Window, ask: Ask) -> list[Json]:
    """Return the dashboard's rows, each with its panels, ready to be drawn."""
    found: list[Json] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            found.append({"title": panel["title"], "panels": [drawn(one, window, ask) for one in panel["panels"]]})
        else:
            found[-1]["panels"].append(drawn(panel, window, ask))
    for row in found:  # make places relative to the row's top
        top = min(panel["place"]["y"] for panel in row["panels"])
        for panel in row["panels"]:
            panel["place"]["y"] -= top
    return found


def drawn(panel: Json, window: Window, ask: Ask) -> Json:
    """Return one panel: its component, the component's options, and the data."""
    try:
        spec = SPECS[panel["type"]](panel)
    except KeyError as missing:
        raise UnknownError(
            f"{panel['title']!r}: {missing} is not known to tools/pictures/mapping.py; add it there"
        ) from None
    answers = [(target, ask(window.fill_in(target["expr"]), bool(target["instant"]))) for target in panel["targets"]]
    made = {"title": panel["title"], "kind": panel["type"], "place": dict(panel["gridPos"]), "spec": spec}
    if panel["type"] == "heatmap":
        return {**made, "heat": heat(answers[0][1], window)}
    results = [list(series(target["legendFormat"], answer)) for target, answer in answers]
    if panel["type"] == "timeseries":
        # Perses colours by query: so each series becomes a query of its own.
        results = [[one] for one in ranked(panel, chain.from_iterable(results))]
        names = [one["formattedName"] for (one,) in results]
        spec["querySettings"] = [
            {"queryIndex": names.index(name), "colorMode": "fixed", "colorValue": colour}
            for name, colour in fixed(panel).items()
            if name in names
        ]
    return {**made, "results": results}


def fixed(panel: Json) -> dict[str, str]:
    """Return the colours of series by their names. An override of another kind raises UnknownError."""
    found: dict[str, str] = {}
    for override in panel["fieldConfig"]["overrides"]:
        matcher, properties = override["matcher"], override["properties"]
        if panel["type"] == "table":
            continue  # a column's
        if matcher["id"] != "byName" or [one["id"] for one in properties] != ["color"]:
            raise UnknownError(f"{panel['title']!r}: the override {override} is not known to tools/pictures/mapping.py")
        found[matcher["options"]] = colour(properties[0]["value"]["fixedColor"])
    return found


def colour(name: str) -> str:
    """Return the colour that Grafana's name stands for; a colour with # is returned as it is."""
    return name if name.startswith("#") else COLOURS[name]


def unit(panel: Json) -> Json:
    """Return Perses's format for the panel's unit."""
    defaults = panel["fieldConfig"]["defaults"]
    return {**UNITS[defaults["unit"]], **({"decimalPlaces": defaults["decimals"]} if "decimals" in defaults else {})}


def thresholds(panel: Json) -> Json:
    """Return the steps with their colours. The first step's colour is for everything below the others."""
    first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return {
        "mode": "absolute",
        "defaultColor": colour(first["color"]),
        "steps": [{"value": step["value"], "color": colour(step["color"]), "name": "limit"} for step in others],
    }


def timeseries(panel: Json) -> Json:
    """Return the options for lines, or for stacked areas."""
    custom = panel["fieldConfig"]["defaults"]["custom"]
    axis = {"show": True, "format": unit(panel)}
    axis.update({name: value for name, value in panel["fieldConfig"]["defaults"].items() if name in ("min", "max")})
    legend = panel["options"]["legend"]
    return {
        "legend": {
            "position": legend["placement"],
            "mode": legend["displayMode"],
            "size": "small",
            "values": legend["calcs"],
        },
        "yAxis": axis,
        "visual": {
            "display": "line",
            "lineWidth": custom["lineWidth"],
            "areaOpacity": custom["fillOpacity"] / 100,
            "pointRadius": 0,  # Grafana's `showPoints: never`
            "palette": {"mode": "categorical"},
            "stack": "all" if custom["stacking"]["mode"] == "normal" else "none",
            "connectNulls": custom["spanNulls"],
        },
        **({"thresholds": thresholds(panel)} if custom["thresholdsStyle"]["mode"] == "line" else {}),
    }


def stat(panel: Json) -> Json:
    """Return the options for one number, coloured by the thresholds, with a line behind it."""
    return {
        "calculation": {"lastNotNull": "last-number"}[panel["options"]["reduceOptions"]["calcs"][0]],
        "format": unit(panel),
        "thresholds": thresholds(panel),
        "sparkline": {},
    }


def table(panel: Json) -> Json:
    """Return the columns as Grafana's transformations leave them: some are hidden, some have another heading."""
    hidden: Json = {}
    renamed: Json = {}
    for transformation in panel["transformations"]:
        if transformation["id"] == "organize":
            hidden, renamed = transformation["options"]["excludeByName"], transformation["options"]["renameByName"]
    sort = {by["displayName"]: "desc" if by["desc"] else "asc" for by in panel["options"]["sortBy"]}
    overrides = {one["matcher"]["options"]: one["properties"] for one in panel["fieldConfig"]["overrides"]}
    columns: list[Json] = [{"name": "timestamp", "header": "Time", "hide": bool(hidden.get("Time"))}]
    for name, heading in renamed.items():
        if not name.startswith("Value"):
            columns.append({"name": name, "header": heading, "align": "left"})
            continue
        properties = {one["id"]: one["value"] for one in overrides.get(heading, ())}
        columns.append({
            "name": perses_column(name),
            "header": heading,
            "align": "right",
            "format": unit({"fieldConfig": {"defaults": {**panel["fieldConfig"]["defaults"], **properties}}}),
            "width": 100,
            "enableSorting": True,
            **({"sort": sort[heading]} if heading in sort else {}),
        })  # fmt: skip
    return {
        "density": "compact",
        "columnSettings": columns,
        # As Grafana's transformation `merge`: one row for each function, with the values of all queries.
        "transforms": [{"kind": "MergeSeries", "spec": {}}],
    }


def perses_column(name: str) -> str:
    """Return Perses's name of a column with values: Grafana's `Value #A` is `value #1`."""
    _, _, letter = name.partition(" #")
    return f"value #{ord(letter) - ord('A') + 1}" if letter else "value"


def heatmap(panel: Json) -> Json:
    """Return the options for a heatmap. Perses has one gradient for all."""
    return {"yAxisFormat": unit(panel), "countFormat": UNITS["short"], "showVisualMap": False}


SPECS: dict[str, Callable[[Json], Json]] = {
    "timeseries": timeseries, "stat": stat, "table": table, "heatmap": heatmap,
}  # fmt: skip


def series(legend: str, answer: list[Json]) -> Iterator[Json]:
    """Yield Prometheus' series as Perses reads them: milliseconds, numbers, and a name for the legend."""
    for one in sorted(answer, key=lambda found: sorted(found["metric"].items())):
        labels = one["metric"]
        name = _LEGEND_LABEL.sub(lambda found, labels=labels: labels.get(found[1], ""), legend)
        points = one["values"] if "values" in one else [one["value"]]
        yield {
            "name": str(sorted(labels.items())),
            "formattedName": name.strip() or "value",
            "labels": {key: value for key, value in labels.items() if key != "__name__"},
            "values": [[round(float(at) * 1000), number(value)] for at, value in points],
        }


def ranked(panel: Json, found: Iterable[Json]) -> list[Json]:
    """Return the series in the order of a legend that is a table, which Perses does not sort."""
    legend = panel["options"]["legend"]
    if "sortBy" not in legend:
        return list(found)
    if legend["sortBy"] != "Mean":
        raise UnknownError(f"{panel['title']!r}: a legend sorted by {legend['sortBy']!r} is not known to mapping.py")

    def mean(one: Json) -> float:
        values = [value for _, value in one["values"] if value is not None]
        return sum(values) / len(values) if values else 0.0

    return sorted(found, key=mean, reverse=legend["sortDesc"])


def number(text: str) -> float | None:
    """Return a number for JSON, None for NaN and infinity: a ratio of two zeros is no number."""
    value = float(text)
    return value if math.isfinite(value) else None


def heat(answer: list[Json], window: Window) -> Json:
    """Return classic buckets as cells, each without the count of the bucket below. Omit empty rows at both ends."""
    cumulative: dict[float, dict[float, float]] = {}
    for one in answer:
        cumulative[float(one["metric"]["le"])] = {float(at): float(value) for at, value in one["values"]}
    bounds = sorted(cumulative)
    counts: list[list[float]] = []
    for index, bound in enumerate(bounds):
        below = cumulative[bounds[index - 1]] if index else {}
        counts.append([max(0.0, cumulative[bound].get(at, 0.0) - below.get(at, 0.0)) for at in window.times])
    used = [index for index, row in enumerate(counts) if any(value > 1e-9 for value in row)]
    kept = range(used[0], used[-1] + 1) if used else range(0)
    cells = [[x, y - kept.start, value] for y in kept for x, value in enumerate(counts[y]) if value > 1e-9]
    # JSON has no infinity, so the bound of the last bucket is null.
    named = [bounds[y] if math.isfinite(bounds[y]) else None for y in kept]
    return {"times": [at * 1000 for at in window.times], "bounds": named, "cells": cells}
