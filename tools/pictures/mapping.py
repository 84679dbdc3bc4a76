"""From Grafana's panels to Perses's: what each panel of a dashboard asks, and what Perses's component is given for it.

Everything that is decided about a panel is decided here, from the committed JSON and from Prometheus' answers; the page
only hands it on. A type, a unit or a colour that is not known here is an error, and a test asks for each that the
dashboards have.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

Json = dict[str, Any]

# Grafana's unit -> Perses's format. Its shortest unit of time is the millisecond.
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
    """A panel has what cannot be drawn; the message says what, and where to add it."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is shown, in seconds since the epoch, and how finely."""

    start: int
    end: int
    step: int
    rate_interval: int

    def fill_in(self, query: str) -> str:
        """A panel's query, with what Grafana's variables stand for: everything."""
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
        """When there may be a point."""
        return range(self.start, self.end + 1, self.step)


Ask = Callable[[str, bool], list[Json]]
"""Prometheus' answer to a query (the list called `result`), over the window, or at its end where `instant`."""


def rows(board: Json, window: Window, ask: Ask) -> list[Json]:
    """The dashboard's rows, each with its panels, ready to be drawn."""
    found: list[Json] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            found.append({"title": panel["title"], "panels": []})
        else:
            found[-1]["panels"].append(drawn(panel, window, ask))
    for row in found:  # places are counted from the row's own top
        top = min(panel["place"]["y"] for panel in row["panels"])
        for panel in row["panels"]:
            panel["place"]["y"] -= top
    return found


def drawn(panel: Json, window: Window, ask: Ask) -> Json:
    """One panel: its component, the options of that, and the data."""
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
        # Perses colours by query: a series with a colour of its own stands for one.
        results = [[one] for one in ranked(panel, chain.from_iterable(results))]
        names = [one["formattedName"] for (one,) in results]
        spec["querySettings"] = [
            {"queryIndex": names.index(name), "colorMode": "fixed", "colorValue": colour}
            for name, colour in fixed(panel).items()
            if name in names
        ]
    return {**made, "results": results}


def fixed(panel: Json) -> dict[str, str]:
    """The colours that series have by their names. An override of another kind is not known here."""
    found: dict[str, str] = {}
    for override in panel["fieldConfig"]["overrides"]:
        matcher, properties = override["matcher"], override["properties"]
        if matcher["id"] != "byName" or [one["id"] for one in properties] != ["color"]:
            raise UnknownError(f"{panel['title']!r}: the override {override} is not known to tools/pictures/mapping.py")
        found[matcher["options"]] = colour(properties[0]["value"]["fixedColor"])
    return found


def colour(name: str) -> str:
    """Of Grafana's name for it, or as it is."""
    return name if name.startswith("#") else COLOURS[name]


def unit(panel: Json) -> Json:
    """Perses's format for the panel's unit."""
    defaults = panel["fieldConfig"]["defaults"]
    return {**UNITS[defaults["unit"]], **({"decimalPlaces": defaults["decimals"]} if "decimals" in defaults else {})}


def thresholds(panel: Json) -> Json:
    """The steps with their colours; the first step's colour is that of everything below the others."""
    first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return {
        "mode": "absolute",
        "defaultColor": colour(first["color"]),
        "steps": [{"value": step["value"], "color": colour(step["color"]), "name": "limit"} for step in others],
    }


def timeseries(panel: Json) -> Json:
    """Lines, or areas on top of one another."""
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
    """One figure, its colour by the thresholds, and a line behind it."""
    return {
        "calculation": {"lastNotNull": "last-number"}[panel["options"]["reduceOptions"]["calcs"][0]],
        "format": unit(panel),
        "thresholds": thresholds(panel),
        "sparkline": {},
    }


def table(panel: Json) -> Json:
    """Columns as Grafana's transformations leave them: some are hidden, some have another heading."""
    hidden: Json = {}
    renamed: Json = {}
    for transformation in panel["transformations"]:
        if transformation["id"] == "organize":
            hidden, renamed = transformation["options"]["excludeByName"], transformation["options"]["renameByName"]
    sort = {by["displayName"]: "desc" if by["desc"] else "asc" for by in panel["options"]["sortBy"]}
    labels = sorted(set(renamed) - {"Time", "Value"})
    columns: list[Json] = [{"name": "timestamp", "header": "Time", "hide": bool(hidden.get("Time"))}]
    columns += [{"name": label, "header": renamed[label], "align": "left"} for label in labels]
    heading = renamed.get("Value", "Value")
    value: Json = {
        "name": "value",
        "header": heading,
        "align": "right",
        "format": unit(panel),
        "width": 90,
        "enableSorting": True,
    }
    if heading in sort:
        value["sort"] = sort[heading]
    return {"density": "compact", "columnSettings": [*columns, value]}


def heatmap(panel: Json) -> Json:
    """Perses has one gradient of its own for all."""
    return {"yAxisFormat": unit(panel), "countFormat": UNITS["short"], "showVisualMap": False}


SPECS: dict[str, Callable[[Json], Json]] = {
    "timeseries": timeseries, "stat": stat, "table": table, "heatmap": heatmap,
}  # fmt: skip


def series(legend: str, answer: list[Json]) -> Iterator[Json]:
    """Prometheus' series as Perses has them: milliseconds, numbers, and a name for the legend."""
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
    """The series as a legend that is a table has them: Perses does not sort it by itself."""
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
    """What JSON can have: a rate of nothing by nothing is no number."""
    value = float(text)
    return value if math.isfinite(value) else None


def heat(answer: list[Json], window: Window) -> Json:
    """Classic buckets as cells: what each has that the one below has not. Empty rows at both ends are left out."""
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
    # JSON has no infinity: the last bucket, which has no bound, is null there.
    named = [bounds[y] if math.isfinite(bounds[y]) else None for y in kept]
    return {"times": [at * 1000 for at in window.times], "bounds": named, "cells": cells}
