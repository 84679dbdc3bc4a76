"""Translate queries that name metrics of the catalogue to PromQL.

A metric is written `<asyncio.eventloop.time>`, a part of a histogram `<dns.lookup.duration:count>`, with matchers
`<asyncio.eventloop.time|state="idle">`. The Prometheus name comes from the exporter's own mapping. An unknown metric,
part or label is an error: so no query can name a metric that obsloop does not have.
"""

import re
from functools import cache

from obsloop_exporters._families import WORKER_LABEL, Family, families

LOOP, WORKER = "asyncio_eventloop_name", WORKER_LABEL
TARGET = ("job", "instance")
PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("bucket", "count", "sum")}
_SIGNAL = re.compile(r"<([a-z][a-z_]*(?:\.[a-z_]+)+)(?::(\w+))?(?:\|([^>]*))?>")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"(?:[^"\\]|\\.)*"')


class QueryError(ValueError):
    """A query names something unknown. The message says what, and what is known."""


@cache
def known() -> dict[str, Family]:
    """Return the exporter's families by the catalogue's name, with the labels that they have in a group of processes.

    A process that is in no group leaves out the label `worker`. To Prometheus that is the same as an empty one.
    """
    return {family.metric.name: family for family in families(workers=True)}


def family(name: str) -> Family:
    """Return the family of a metric."""
    try:
        return known()[name]
    except KeyError:
        raise QueryError(f"{name} is not in obsloop/metrics/catalog.py; there are {', '.join(known())}") from None


def metric(name: str, part: str = "") -> str:
    """Return the name of a metric's series in Prometheus."""
    found = family(name)
    if part not in PARTS[found.type]:
        raise QueryError(f"{name} is a {found.type}: expected the part {' or '.join(map(repr, PARTS[found.type]))}")
    if found.type == "counter":
        return f"{found.name}_total"
    return f"{found.name}_{part}" if part else found.name


def promql(text: str, target: str = "", loop: str = "") -> str:
    """Return `text` as PromQL. `target` holds matchers for every series, `loop` for every series of a loop."""
    labels: set[str] = set()

    def replace(found: re.Match[str]) -> str:
        name, part, extra = found[1], found[2] or "", found[3] or ""
        own = {*family(name).label_names, "le" if part == "bucket" else ""}
        for matcher in filter(None, extra.split(",")):
            parsed = _MATCHER.fullmatch(matcher)
            if not parsed or parsed[1] not in own | set(TARGET):
                raise QueryError(f"{matcher!r} matches no label of {name}; it has {', '.join(sorted(own - {''}))}")
        labels.update(own)
        matchers = [target, loop if family(name).metric.scope == "loop" else "", extra]
        inside = ",".join(filter(None, matchers))
        return metric(name, part) + (f"{{{inside}}}" if inside else "")

    result = _SIGNAL.sub(replace, text)
    for grouping in _GROUPING.findall(text):
        for label in filter(None, (word.strip() for word in grouping.split(","))):
            if labels and label not in labels | set(TARGET):
                raise QueryError(f"grouped by {label!r}, which is no label of the metrics in {text}")
    return result


def needs_full(text: str) -> bool:
    """Return whether the setting ``metrics=basic`` leaves out a metric in `text`."""
    return any(family(name).metric.level == "full" for name in metrics(text))


def metrics(text: str) -> list[str]:
    """Return the catalogue's names in `text`."""
    return [found[1] for found in _SIGNAL.finditer(text)]
