"""Answer /debug/pprof/ and /debug/pprof/profile, where Go's tools and profile scrapers expect them."""

from html import escape
from typing import Any

from obsloop.service import sampling, text
from obsloop.service.asked import BUSY, sampling_seconds, values
from obsloop.service.messages import Request, Response, plain
from obsloop.service.pages import answer, page
from obsloop.service.profile import DOWNLOADS, download, respond
from obsloop.service.resting import rest

_THERE = (
    ("/debug/pprof/profile?seconds=30", "samples the loops' threads a hundred times a second from now on"),
    ("/profile?format=pprof", "where loops were blocked in the last 24 hours"),
    ("/profile?what=waiting&format=pprof", "where tasks waited in the last 24 hours"),
)


def index(request: Request) -> Response:
    """Return what there is in pprof's format."""
    found = {"profiles": [{"path": path, "summary": summary} for path, summary in _THERE if _served(request, path)]}

    def html(report: dict[str, Any]) -> Response:
        items = [
            f'<li><a href="{escape(entry["path"])}">{escape(entry["path"])}</a> {escape(entry["summary"])}</li>'
            for entry in report["profiles"]
        ]
        hint = "<p>For example: <code>go tool pprof http://HOST:PORT/debug/pprof/profile</code></p>"
        return page(request, "obsloop: pprof", f"<ul>{''.join(items)}</ul>{hint}")

    def lines(report: dict[str, Any]) -> str:
        return text.joined([f"{entry['path']}  {entry['summary']}" for entry in report["profiles"]])

    return answer(request, found, html, lines)


def running(request: Request) -> Response:
    """Sample the loops' threads for as long as the client asks, and return the profile: as pprof, unless it asks."""
    seconds = sampling_seconds(request)
    if not seconds:
        return plain(400, "Unknown duration: expected seconds=N, at least 0.1 and at most 60.")
    if not sampling.allowed():
        return plain(403, "Sampling is off: the setting pprof, or OBSLOOP_PPROF, says so.")
    try:
        found = sampling.sample(seconds, rest)
    except sampling.BusyError:
        return plain(503, BUSY, ("Retry-After", "30"))
    wanted = values(request).get("format", "pprof")
    if wanted in DOWNLOADS:
        return download(found, wanted, 1_000_000_000 // sampling.HERTZ)
    return respond(request, found)


def _served(request: Request, path: str) -> bool:
    return not request.served or path.partition("?")[0] in request.served
