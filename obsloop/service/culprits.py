"""The culprits of blocks, for JSON, for pages and as text: seconds, blocks, worst, last, cause, lines and stack."""

from collections.abc import Sequence
from html import escape
from typing import Any

from obsloop.blocking.totals import OTHERS, Group, Sum, Totals
from obsloop.service import source, text
from obsloop.service.pages import clean, table

MAX_SHOWN = 50
MAX_LINES = 10
"""Of one culprit."""
NAMES = {"5m": "5 min", "1h": "1 h", "24h": "24 h"}
"""How a person reads the names of the windows."""
MANY = "many short callbacks"


def report(found: Totals, limit: int = MAX_SHOWN) -> list[dict[str, Any]]:
    """Return the culprits for JSON, at most `limit`, the one with most seconds in the last five minutes first."""
    return [_shape(group, found.at) for group in found.groups[:limit]]


def _shape(group: Group, now: float) -> dict[str, Any]:
    longest = group.windows["24h"]
    lines = list(group.lines.items())[:MAX_LINES]
    own = any(
        getattr(frame, "own", False) and getattr(frame, "function", "") == group.function for frame in group.stack
    )
    return {
        "loop": clean(group.loop_name),
        "function": clean(group.function) or MANY,
        "file": source.where(group.filename, lines[0][0]) if lines and group.filename else None,
        "seen": group.seen,
        "cause": next(iter(group.causes), "unknown"),
        "windows": {name: _sum(total) for name, total in group.windows.items()},
        "worst_seconds": longest.worst,
        "last_seconds_ago": max(0.0, now - longest.last),
        "causes": {name: total.seconds for name, total in group.causes.items()},
        "lines": [
            {
                "file": source.where(group.filename, lineno) or None,
                "source": source.line(group.filename, lineno) or None if own else None,
                **_sum(total),
            }
            for lineno, total in lines
        ],
        "lines_left_out": len(group.lines) - len(lines),
        "stack": source.frames(group.stack),
    }


def _sum(total: Sum) -> dict[str, Any]:
    return {"seconds": total.seconds, "blocks": total.blocks, "worst_seconds": total.worst}


def html(found: Sequence[dict[str, Any]], windows: Sequence[str]) -> str:
    """Return the culprits as a table with the seconds of these windows; count and worst are of the last of them."""
    last = windows[-1]
    head = ("culprit", *(NAMES[name] for name in windows), "blocks", "worst", "last", "cause")
    rows = [
        (
            _culprit(entry),
            *(f"<b>{_spent(entry['windows'][name])}</b>" if name == windows[0] else _spent(entry["windows"][name])
              for name in windows),
            str(entry["windows"][last]["blocks"]),
            text.seconds(entry["windows"][last]["worst_seconds"]),
            text.ago(entry["last_seconds_ago"]),
            escape(text.cause(entry["cause"])),
        )
        for entry in found
    ]  # fmt: skip
    return table(head, rows, numbers=range(1, len(windows) + 4))


def lines(found: Sequence[dict[str, Any]], windows: Sequence[str]) -> list[str]:
    """Return the same as lines of text."""
    last = windows[-1]
    head = (*(NAMES[name] for name in windows), "blocks", "worst", "last", "cause", "where", "culprit")
    rows = [
        (
            *(_spent(entry["windows"][name]) for name in windows),
            str(entry["windows"][last]["blocks"]),
            text.seconds(entry["windows"][last]["worst_seconds"]),
            text.ago(entry["last_seconds_ago"]),
            text.cause(entry["cause"]),
            entry["file"] or "",
            entry["function"],
        )
        for entry in found
    ]
    n = len(windows)
    return text.table(head, rows, right="".join(map(str, range(n + 3))), ends=f"{n + 4}{n + 5}")


def stack_html(stack: Sequence[dict[str, Any]]) -> str:
    """Return a stack as HTML, the program's own frames in bold."""
    shown: list[str] = []
    for frame in stack:
        (first, *rest) = source.lines([frame])
        mark = "b" if frame["own"] else "i"
        shown.append(f"<{mark}>{escape(first)}</{mark}>")
        shown += map(escape, rest)
    return f"<pre>{chr(10).join(shown)}</pre>" if shown else ""


def _spent(total: dict[str, Any]) -> str:
    return text.seconds(total["seconds"]) if total["blocks"] else "-"


def _culprit(entry: dict[str, Any]) -> str:
    """Return the culprit's name and place; its lines and its stack open below."""
    code = next((line["source"] for line in entry["lines"] if line["source"]), "")
    place = escape(entry["file"] or "")
    if not entry["seen"] and entry["file"]:
        place += ' <span class="dim">(its line is not known)</span>'
    head = f"<b>{escape(entry['function'])}</b>" + (f" <small>loop {escape(entry['loop'])}</small>")
    if entry["function"] == OTHERS.function:
        head = "<b>(others)</b>"
    below = f"{place}{f' <code>{escape(code)}</code>' if code else ''}"
    more = [
        f"{text.seconds(line['seconds'])} in {line['blocks']} blocks: {line['file'] or ''}  {line['source'] or ''}"
        for line in entry["lines"]
    ]
    inside = f"<pre>{escape(chr(10).join(more))}</pre>" if len(more) > 1 else ""
    inside += stack_html(entry["stack"])
    if not inside:
        return f"{head}<br>{below}"
    key = escape(f"{entry['loop']} {entry['function']} {(entry['file'] or '').rpartition(':')[0]}")
    return f'<details data-key="{key}"><summary>{head}<br>{below}</summary>{inside}</details>'
