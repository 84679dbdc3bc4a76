"""Build Grafana's classic dashboard model: panels on a grid, their links, the dashboard around them.

Only fields that Grafana 11 writes itself. Nothing here knows a metric.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

import config
from queries import LOOP, metric, needs_full, promql

Kind = Literal["timeseries", "stat", "heatmap", "table"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
TARGET = 'job=~"$job",instance=~"$instance"'
OF_LOOP = f'{LOOP}=~"$loop"'
WIDTH = 24
# The query that Explore opens: the spans of slow callbacks, in the trace store that the dashboard's variable names.
_TRACES = {
    "obsloop": {
        "datasource": "TRACES",
        "queries": [{"refId": "A", "queryType": "traceql", "query": '{ name =~ "asyncio .*" }', "limit": 20}],
        "range": {"from": "FROM", "to": "TO"},
    }
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the label in it, or the value of a query (`Value`; with several queries `Value #A`)."""

    field: str
    heading: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its queries are `(query, legend)`; metrics are written as in `queries`."""

    title: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    kind: Kind = "timeseries"
    unit: str = "s"
    width: int = 8
    height: int = 8
    stacked: bool = False
    limit: float | None = None
    """A red line: the configuration's threshold."""
    alert: str = ""
    """The panel links to the runbook's entry for this alert."""
    traces: bool = False
    """Whether the panel links to the spans of slow callbacks."""
    condition: str = ""
    """The event before which the panel is empty; none if it always has data."""
    colours: dict[str, str] = field(default_factory=dict[str, str])
    """Colours with a meaning, by the series' name in the legend; other series get Grafana's, in order."""
    columns: tuple[Column, ...] = ()
    """A table's columns, from left to right. It is sorted by the second one."""
    decimals: int | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def expressions(self) -> list[str]:
        """Return its queries as Grafana sends them."""
        return [promql(query, TARGET, OF_LOOP) for query, _ in self.queries]


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def dashboard(uid: str, title: str, description: str, rows: tuple[Row, ...]) -> dict[str, Any]:
    """Return a whole dashboard, ready for JSON."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["asyncio", "obsloop", "python"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            _link("Runbook", config.RUNBOOK),
            {**_link("obsloop's dashboards", ""), "type": "dashboards", "tags": ["obsloop"], "includeVars": True,
             "keepTime": True, "asDropdown": True, "targetBlank": False},
        ],
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": list(_placed(rows)),
    }  # fmt: skip


def _link(title: str, url: str) -> dict[str, Any]:
    return {
        "title": title, "type": "link", "icon": "external link", "tooltip": "", "url": url, "tags": [],
        "asDropdown": False, "targetBlank": True, "includeVars": False, "keepTime": False,
    }  # fmt: skip


def _variables() -> list[dict[str, Any]]:
    anchor = metric("asyncio.eventloop.utilization")

    def source(name: str, label: str, kind: str) -> dict[str, Any]:
        return {"name": name, "label": label, "type": "datasource", "query": kind, "hide": 0, "skipUrlSync": False,
                "multi": False, "includeAll": False, "refresh": 1, "regex": ""}  # fmt: skip

    def labels(name: str, title: str, label: str, matchers: str) -> dict[str, Any]:
        query = f"label_values({anchor}{{{matchers}}}, {label})" if matchers else f"label_values({anchor}, {label})"
        return {
            "name": name, "label": title, "type": "query", "datasource": SOURCE, "hide": 0, "skipUrlSync": False,
            "query": {"query": query, "refId": "Variable"}, "refresh": 2, "sort": 1, "regex": "",
            "multi": True, "includeAll": True, "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }  # fmt: skip

    return [
        source("datasource", "Prometheus", "prometheus"),
        source("traces", "Traces", "tempo"),
        labels("job", "Job", "job", ""),
        labels("instance", "Instance", "instance", 'job=~"$job"'),
        labels("loop", "Loop", LOOP, TARGET),
    ]


def _placed(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Yield the rows, all but the first one closed, and the panels that are not in a closed row."""
    number, top = 1, 0
    for row in rows:
        heading: dict[str, Any] = {"id": number, "type": "row", "title": row.title, "collapsed": top > 0, "panels": [],
                                   "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}}  # fmt: skip
        yield heading
        number, top, left, tall = number + 1, top + 1, 0, 0
        placed: list[dict[str, Any]] = []
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, tall = top + tall, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            placed.append({"id": number, "gridPos": place, **_panel(panel)})
            number, left, tall = number + 1, left + panel.width, max(tall, panel.height)
        top += tall
        if heading["collapsed"]:
            # Grafana asks for their data when the row is opened. Below a closed row there is only its heading.
            heading["panels"], top = placed, heading["gridPos"]["y"] + 1
        else:
            yield from placed


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    description = panel.description
    if panel.condition:
        description = f"{description} Empty until {panel.condition}.".strip()
    if any(needs_full(query) for query, _ in panel.queries):
        description = f"{description} Not with OBSLOOP_METRICS=basic.".strip()
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": description,
        "datasource": SOURCE,
        "targets": [_target(panel, index) for index in range(len(panel.queries))],
        "links": _links(panel),
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                **_scale(panel),
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": _custom(panel),
                **_data_links(panel),
            },
            "overrides": [
                *(_coloured(name, colour) for name, colour in panel.colours.items()),
                *(_measured(column) for column in panel.columns if column.unit),
            ],
        },
        "options": {**_options(panel), **panel.options},
        **({"transformations": _columns(panel)} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, index: int) -> dict[str, Any]:
    instant = panel.kind in ("table",)
    return {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "expr": panel.expressions()[index],
        "legendFormat": panel.queries[index][1],
        "instant": instant,
        "range": not instant,
        "exemplar": not instant and "_bucket{" in panel.expressions()[index],
        "format": {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series"),
    }


def _links(panel: Panel) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = []
    if panel.alert:
        url = f"{config.RUNBOOK}#{panel.alert.lower()}"
        links.append(_link(f"Runbook: {panel.alert}", url))
    if panel.traces:
        panes = quote(json.dumps(_TRACES, separators=(",", ":")), safe="")
        for word, variable in (("TRACES", "${traces}"), ("FROM", "${__from}"), ("TO", "${__to}")):
            panes = panes.replace(word, variable)
        url = f"/explore?schemaVersion=1&orgId=1&panes={panes}"
        links.append(_link("Traces of slow callbacks", url))
    return links


def _data_links(panel: Panel) -> dict[str, Any]:
    """Return a link from each instance that the panel shows to obsloop's own pages in it."""
    if panel.kind != "timeseries" or not any("{{instance}}" in legend for _, legend in panel.queries):
        return {}
    page = "http://${__field.labels.instance}/"
    return {"links": [{"title": "${__field.labels.instance}: its own page", "url": page, "targetBlank": True}]}


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 60 if panel.stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.limit is not None else "off"},
    }


def _scale(panel: Panel) -> dict[str, Any]:
    """Return the axis: from 0, for a share to 1. With any other axis, noise looks like a change."""
    if panel.kind == "timeseries":
        return {"min": 0, "max": 1} if panel.unit == "percentunit" else {"min": 0}
    return {} if panel.decimals is None else {"decimals": panel.decimals}


def _coloured(name: str, colour: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


def _measured(column: Column) -> dict[str, Any]:
    # `increase` extrapolates whole numbers to fractions.
    decimals = [{"id": "decimals", "value": 0}] if column.unit == "short" else []
    return {
        "matcher": {"id": "byName", "options": column.heading},
        "properties": [{"id": "unit", "value": column.unit}, *decimals],
    }


def _columns(panel: Panel) -> list[dict[str, Any]]:
    """Return transformations that merge all queries into one table, without the column of times, with headings."""
    organized = {
        "excludeByName": {"Time": True},
        "indexByName": {column.field: index for index, column in enumerate(panel.columns)},
        "renameByName": {column.field: column.heading for column in panel.columns},
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organized}]


def _options(panel: Panel) -> dict[str, Any]:
    kind = panel.kind
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
            "textMode": "auto", "wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard",
        }  # fmt: skip
    if kind == "table":
        sort = {"displayName": panel.columns[1].heading, "desc": True}
        return {"showHeader": True, "cellHeight": "sm", "sortBy": [sort]}
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange",
                  "scale": "exponential", "reverse": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit},
    }  # fmt: skip
