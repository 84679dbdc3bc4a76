"""Render a report as JSON for programs, as a page, or as text for a terminal. Loaded with the first such answer.

Texts come from the observed program and may be anything. `clean` bounds them, `escape` makes them harmless in a page,
and the page's policy lets nothing run or load.
"""

import json
import os
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import UTC, datetime
from html import escape as escape  # noqa: PLC0414  (for the modules that make pages)
from typing import Any

from obsloop.base.address import PATHS
from obsloop.service.messages import Request, Response, plain
from obsloop.service.style import LIVE_POLICY, POLICY, SCRIPT, STYLE

MAX_TEXT = 200
SAMPLING = "/debug/pprof/profile"
"""No page links here at its head: the answer takes half a minute."""
_KINDS = {"text/html": "html", "application/json": "json", "text/plain": "text"}

FORMATS: tuple[str, ...] = ("json", "html", "text")
_TERMINALS = ("curl/", "wget/", "httpie/", "xh/")
"""How the `User-Agent` of programs begins that a person runs in a terminal: without a wish they get text."""


def answer(
    request: Request,
    report: dict[str, Any],
    page_of: Callable[[dict[str, Any]], Response],
    text_of: Callable[[dict[str, Any]], str],
) -> Response:
    """Return `report` as JSON, as a page or as text, whichever the client asks for."""
    wanted = wants(request)
    if not wanted:
        return plain(400, "Unknown format: expected format=json or format=html or format=text.")
    if wanted == "html":
        return page_of(report)
    if wanted == "text":
        return Response(200, text_of(report).encode("utf-8", "replace"))
    return Response(200, json.dumps(report, ensure_ascii=False).encode() + b"\n", "application/json")


def wants(request: Request) -> str:
    """Return the one of `FORMATS` that the client asks for; an empty string if it names another format."""
    wanted = _format(request.query)
    if wanted:
        return wanted if wanted in FORMATS else ""
    headers = request.headers
    weights = _weights(headers.get("accept", ""))
    most = max(weights.values())
    if most > 0:
        return next(name for name in ("html", "json", "text") if weights[name] == most)
    return "text" if headers.get("user-agent", "").lower().startswith(_TERMINALS) else "json"


def who(report: Mapping[str, Any]) -> str:
    """Return whose it is: ``process 4711``, ``4 workers``, or, if one was asked for, ``worker 2, process 4711``."""
    found, wanted = report.get("workers", ()), report.get("worker")
    if wanted is not None:
        return f"worker {wanted}, process {found[0]['process']}" if found else f"no worker {wanted}"
    return f"{len(found)} workers" if len(found) > 1 else f"process {os.getpid()}"


def page(request: Request, title: str, body: str, *, live: bool = False, whose: str = "") -> Response:
    """Return a page. `title` and `whose` (default: this process) are text, `body` is HTML. A `live` one refreshes."""
    links = "\n".join(
        f'<a href="{escape(path)}"{" aria-current=page" if path == request.path else ""}>'
        f"{escape(path.strip('/').rpartition('/')[2]) or 'overview'}</a>"
        for path in PATHS
        if (not request.served or path in request.served) and path != SAMPLING
    )
    script = f"<script>{SCRIPT}</script>\n" if live else ""
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n<header><h1>{escape(title)}</h1> <nav>\n{links}\n</nav> "
        f'<span class="dim">{escape(whose or who({}))}</span> <span class="dim" id="state"></span></header>\n'
        f"<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
    )
    return Response(200, text.encode(), "text/html; charset=utf-8", (LIVE_POLICY if live else POLICY,))


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: Container[int] = ()) -> str:
    """Return a table as HTML. `head` is text; the cells of `rows` are HTML. `numbers`: columns aligned to the right.

    On a narrow screen, each row is a paragraph: the first cell, then the others with the names of their columns.
    """
    names = [escape(name) for name in head]
    sides = [" class=n" if i in numbers else "" for i in range(len(names))]
    labels = [f' data-name="{name}"' if name and i else "" for i, name in enumerate(names)]
    starts = [f"{side}{label}" for side, label in zip(sides, labels, strict=True)]
    lines = ['<table class="list">']
    lines.append(f"<tr>{''.join(f'<th{side}>{name}</th>' for side, name in zip(sides, names, strict=True))}</tr>")
    for row in rows:
        cells = [f"<td{start}>{cell}</td>" for cell, start in zip(row, starts, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
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


def _weights(accept: str) -> dict[str, float]:
    """Return how much an Accept header wishes for each format. `*/*` wishes for none of them."""
    weights = dict.fromkeys(FORMATS, 0.0)
    for choice in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in choice.split(";"))
        name = _KINDS.get(kind)
        if name is not None:
            weights[name] = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
