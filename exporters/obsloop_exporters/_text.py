"""Write the two text formats from a reading: Prometheus 0.0.4 (and 1.0.0), and OpenMetrics 1.0 with exemplars.

The bytes are those of prometheus_client, as a test checks, in a fraction of its time: for each of hundreds of samples
that makes an object, sorts a dictionary and matches several patterns. Names that need escaping cannot be written here;
the catalogue has none.
"""

from __future__ import annotations

from obsloop_exporters._families import Family, number
from obsloop_exporters._reading import Buckets, Reading


def render(reading: Reading, *, openmetrics: bool) -> bytes:
    """Return a whole answer."""
    parts: list[str] = []
    for family, all_series in reading:
        parts.append(_head(family, openmetrics))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for labels, value in all_series:
            pairs = sorted(zip(family.label_names, labels, strict=True))
            if isinstance(value, Buckets):
                _histogram(parts, family, pairs, value, openmetrics)
            else:
                parts.append(f"{name}{_braced(pairs)} {number(value)}\n")
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _head(family: Family, openmetrics: bool) -> str:
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        name, unit = family.name, f"# UNIT {family.name} {family.unit}\n" if family.unit else ""
        text = text.replace('"', r"\"")
    else:
        name, unit = f"{family.name}_total" if family.type == "counter" else family.name, ""
    return f"# HELP {name} {text}\n# TYPE {name} {family.type}\n{unit}"


def _histogram(
    parts: list[str], family: Family, pairs: list[tuple[str, str]], value: Buckets, openmetrics: bool
) -> None:
    # Labels are written in the order of their names, and `le` is one of them.
    before = "".join(f"{_pair(*pair)}," for pair in pairs if pair[0] < "le")
    after = "".join(f",{_pair(*pair)}" for pair in pairs if pair[0] > "le")
    head, tail = f'{family.name}_bucket{{{before}le="', f'"{after}}} '
    last, text = -1, ""
    first = len(parts)
    for bound, count in zip(family.bound_texts, value.counts, strict=True):
        if count != last:  # most buckets are empty and repeat the one before
            last, text = count, number(count)
        parts.append(f"{head}{bound}{tail}{text}\n")
    if openmetrics:
        for place, (of, at, trace_id, span_id) in value.exemplars.items():
            ids = _braced([("span_id", span_id), ("trace_id", trace_id)])
            parts[first + place] = f"{parts[first + place][:-1]} # {ids} {number(of)} {at}\n"
    labels = _braced(pairs)
    parts.append(f"{family.name}_count{labels} {text}\n{family.name}_sum{labels} {number(value.sum)}\n")


def _braced(pairs: list[tuple[str, str]]) -> str:
    return f"{{{','.join([_pair(*pair) for pair in pairs])}}}" if pairs else ""


def _pair(name: str, value: str) -> str:
    value = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}="{value}"'
