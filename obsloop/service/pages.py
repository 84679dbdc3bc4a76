"""Render a report as JSON for programs or as a plain page for people. Loaded with the first such answer.

Texts come from the observed program and may be anything. `clean` bounds them, `escape` makes them harmless in a page,
and the page's policy lets nothing run or load.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape as escape  # noqa: PLC0414  (for the modules that make pages)
from typing import Any

from obsloop.service.messages import Request, Response, plain

MAX_TEXT = 200

STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:1.5em}"
    "table{border-collapse:collapse}"
    "th,td{text-align:left;vertical-align:top;padding:.2em 1em .2em 0;border-bottom:1px solid #ccc}"
    "td{overflow-wrap:anywhere}"
    "pre{margin:.3em 0;white-space:pre-wrap}"
)
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = ("Content-Security-Policy", f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'")


def answer(request: Request, report: dict[str, Any], page_of: Callable[[dict[str, Any]], Response]) -> Response:
    """Return `report` as JSON or as the page that `page_of` makes of it, whichever the client asks for."""
    wanted = wants(request)
    if not wanted:
        return plain(400, "Unknown format: expected format=json or format=html.")
    if wanted == "html":
        return page_of(report)
    return Response(200, json.dumps(report, ensure_ascii=False).encode() + b"\n", "application/json")


def wants(request: Request) -> str:
    """Return ``json`` or ``html``, whichever the client asks for; an empty string if it names another format."""
    wanted = _format(request.query)
    if not wanted:
        return "html" if _prefers_page(request.headers.get("accept", "")) else "json"
    return wanted if wanted in ("json", "html") else ""


def page(title: str, body: str) -> Response:
    """Return a page about this process. `title` is text, `body` is HTML."""
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n'
        f'<head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n<p>The event loops of process {os.getpid()}.</p>\n"
        f"{body}\n</body>\n</html>\n"
    )
    return Response(200, text.encode(), "text/html; charset=utf-8", (POLICY,))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table as HTML. `head` is text; the cells of `rows` are HTML."""
    lines = ["<table>", f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return at most `limit` characters of `text`, with `?` for those that control a terminal or reverse the line."""
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def place(filename: str, lineno: int | None, limit: int = MAX_TEXT) -> str | None:
    """Return `path:line`, with only the end of a long path; None if there is no source."""
    if not filename:
        return None
    if len(filename) > limit:
        filename = f"...{filename[3 - limit :]}"
    return f"{clean(filename, limit)}:{lineno or 0}"


def moment(timestamp: float) -> str | None:
    """Return a time as ISO 8601 in UTC; None if the calendar does not have it."""
    try:
        return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None


def _format(query: str) -> str:
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if name == "format":
            return value
    return ""


def _prefers_page(accept: str) -> bool:
    """Return whether Accept names HTML and does not prefer JSON. `*/*` alone comes from a program."""
    weights = {"text/html": 0.0, "application/json": 0.0}
    for choice in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in choice.split(";"))
        if kind in weights:
            weights[kind] = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return 0 < weights["text/html"] >= weights["application/json"]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
