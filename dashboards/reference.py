"""Write the reference page of metrics from the catalogue."""

from queries import LOOP, known, metric

HEAD = """\
# The metrics

<!-- Made by dashboards/build.py from obsloop/metrics/catalog.py: change that. -->

All metrics of obsloop: the name in OpenTelemetry, what it means, the name in Prometheus, and the labels with their
values or their greatest number (further values are `_OTHER`). Every metric of a loop also has the label
`asyncio.eventloop.name` (`{loop}`). Metrics that are "by worker" have the label `worker` if the process is in a
group. All others are the sums of the group's processes, or of gauges the greatest value. A histogram's series end in
`_bucket`, `_count` and `_sum`.

With `OBSLOOP_METRICS=basic`, only the metrics of level `basic` are exported. A series begins with its first event,
unless its metric says "from the start".
"""


def _bounds(bounds: tuple[float, ...]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


def text() -> str:
    """Return the page."""
    parts = [HEAD.format(loop=LOOP)]
    for family in known().values():
        one = family.metric
        name = metric(one.name, "count").removesuffix("_count") if family.type == "histogram" else metric(one.name)
        parts.append(f"## {one.name}\n\n{one.help}\n")
        lines = [
            f"- Prometheus: `{name}`",
            f"- {one.kind}, unit `{one.unit}`, of a {one.scope}{', by worker' if one.per_worker else ''}",
            f"- level `{one.level}`{', from the start' if one.from_start else ''}",
        ]
        if one.kind == "histogram":
            basic = f"; `basic`: {_bounds(one.basic_buckets)}" if one.basic_buckets else ""
            lines.append(f"- buckets: {_bounds(one.buckets)}{basic}")
        for label in one.labels:
            values = ", ".join(f"`{value}`" for value in label.values) if label.values else f"at most {label.bound}"
            lines.append(f"- `{label.name}`: {values}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
