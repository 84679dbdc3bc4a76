"""Answer /profile: where loops were blocked, or where tasks wait, as a flame graph and in other tools' formats.

Everything here is made from the plain data of obsloop/profile/data.py, whether it is of one process or of several.
"""

from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import urlencode

from obsloop.blocking import profile as blocked
from obsloop.profile import data, formats, pprof
from obsloop.profile.data import Profile
from obsloop.profile.windows import KEPT_FOR
from obsloop.service import flame, source, text, workers
from obsloop.service.asked import number, values
from obsloop.service.messages import Request, Response, plain
from obsloop.service.pages import answer, clean, page, table, who
from obsloop.tasks import waiting

KINDS: dict[str, Callable[[float], Profile]] = {"blocked": blocked.profile, "waiting": waiting.profile}
"""What can be asked for, and where it comes from."""
DOWNLOADS = ("collapsed", "speedscope", "pprof")
WINDOWS = {300: "5 min", 3_600: "1 h", KEPT_FOR: "24 h"}
MAX_LINES = 20
_TITLES = {"blocked": "where loops were blocked", "waiting": "where tasks wait", "running": "where loops spent time"}
_LABELS = ("cause", "route", "waits_for", "task", "loop", "worker")
_EXPECTED = "format=html, json, text, collapsed, speedscope or pprof"


def profile(request: Request) -> Response:
    """Return a profile of this process, or of its group, in the format that the client asks for."""
    asked = values(request)
    what = asked.get("what", "blocked")
    if what not in KINDS:
        return plain(400, f"Unknown profile: expected what={' or what='.join(KINDS)}.")
    seconds = number(asked.get("seconds", ""), float(KEPT_FOR))
    if not 0 < seconds <= KEPT_FOR:
        return plain(400, f"Unknown window: expected seconds=N, more than 0 and at most {KEPT_FOR}.")
    path = f"/profile?{urlencode({'what': what, 'seconds': seconds})}"
    found: Any = workers.report(request, path, lambda: {**KINDS[what](seconds)}, merged)
    return respond(request, found)


def own(request: Request) -> dict[str, Any]:
    """Return what another process of the group asks for: this one's profile, as plain data."""
    asked = values(request)
    return {**KINDS[asked["what"]](float(asked["seconds"]))}


def merged(reports: dict[int, Any]) -> dict[str, Any]:
    """Return one profile of those of several workers, each with its number as a label."""
    return {**data.merge(data.labelled(found, worker=str(number)) for number, found in reports.items())}


def respond(request: Request, found: Profile) -> Response:
    """Return this profile in the format that the client asks for."""
    wanted = values(request).get("format", "")
    if wanted in DOWNLOADS:
        return download(found, wanted)
    if wanted not in ("", "html", "json", "text"):
        return plain(400, f"Unknown format: expected {_EXPECTED}.")
    return answer(request, {**found}, lambda _: _page(request, found), lambda _: _text(found))


def download(found: Profile, wanted: str, period_ns: int = 0) -> Response:
    """Return a profile as a file in one of the formats ``DOWNLOADS``."""
    if wanted == "collapsed":
        return Response(200, formats.collapsed(found))
    name, body, kind = "speedscope.json", b"", "application/json"
    if wanted == "speedscope":
        body = formats.speedscope(found)
    else:
        name, body, kind = "pb.gz", pprof.encode(found, period_ns), "application/octet-stream"
    disposition = f'attachment; filename="obsloop-{found["what"]}.{name}"'
    return Response(200, body, kind, (("Content-Disposition", disposition),))


# As a page


def _page(request: Request, found: Profile) -> Response:
    asked = {key: value for key, value in values(request).items() if key != "format"}

    def link(**changes: str) -> str:
        return f"{request.path}?{urlencode({**asked, **changes})}"

    root = flame.tree(found)
    zoomed = flame.find(root, asked.get("zoom", ""))
    without = {key: value for key, value in asked.items() if key != "zoom"}
    parts = [_chips(request, found["what"], without)]
    parts.append(f"<p>{escape(_sentence(found))}</p>")
    if root.ns:
        parts.append(flame.svg(root, zoomed, lambda key: link(zoom=key)))
        back = (
            f'<a href="{escape(request.path)}?{escape(urlencode(without))}">Show all</a>. '
            if zoomed is not root
            else ""
        )
        parts.append(
            f'<p class="dim">{back}Callers are above. Dark: your own code. A click, or Tab and Enter, zooms in.</p>'
        )
        parts.append("<h2>Lines of your own code</h2>")
        head = ("line", "time", "share")
        rows = [
            (
                f"<b>{escape(clean(function))}</b> <small>{escape(where)}</small>"
                + (f"<br><code>{escape(code)}</code>" if code else ""),
                text.seconds(ns / 1e9),
                text.percent(ns / root.ns),
            )
            for function, where, code, ns in own_lines(found)
        ]
        parts.append(table(head, rows, numbers=(1, 2)))
        for label in _LABELS:
            sums = _by_label(found, label)
            if sums and len(sums) + (sum(sums.values()) < root.ns) > 1:
                rows = [
                    (escape(clean(text.cause(value) if label == "cause" else value)), text.seconds(ns / 1e9),
                     text.percent(ns / root.ns))
                    for value, ns in list(sums.items())[:MAX_LINES]
                ]  # fmt: skip
                parts += [
                    f"<h2>By {label.replace('_', ' ')}</h2>",
                    table((label, "time", "share"), rows, numbers=(1, 2)),
                ]
    return page(request, "obsloop: profile", "\n".join(parts), whose=who(found))


def _chips(request: Request, what: str, without: dict[str, str]) -> str:
    """Return the links to other profiles, windows and formats."""

    def chip(name: str, current: bool, **changes: str) -> str:
        query = escape(urlencode({**without, **changes}))
        return f'<a href="{escape(request.path)}?{query}"{" aria-current=true" if current else ""}>{escape(name)}</a>'

    seconds = without.get("seconds", str(KEPT_FOR))
    kinds = [chip(_TITLES[kind], kind == what, what=kind) for kind in KINDS]
    windows = [chip(name, seconds == str(length), seconds=str(length)) for length, name in WINDOWS.items()]
    downloads = [chip(name, False, format=name) for name in DOWNLOADS]
    lines = [
        f'<div class="chips">{" ".join(chips)}</div>'
        for chips in (kinds, ['<span class="dim">last</span>', *windows, '<span class="dim">as</span>', *downloads])
    ]
    return "\n".join(lines)


def _sentence(found: Profile) -> str:
    """Return what the sum of the profile means."""
    spent, window = text.seconds(data.total_ns(found) / 1e9), text.seconds(found["seconds"])
    if not found["samples"]:
        return {
            "blocked": f"Nothing has blocked a loop in the last {window}, or since the process began.",
            "waiting": f"No task has waited in the last {window}, as far as it was sampled.",
        }.get(found["what"], f"No loop has run a callback in these {window}.")
    said = {
        "blocked": f"In the last {window}, loops were blocked for {spent}.",
        "waiting": f"In the last {window}, tasks waited for {spent}, added up over all tasks.",
    }.get(found["what"], f"In {window}, the loops' threads ran callbacks for {spent}.")
    other = " Of more stacks than fit, the rest is under _OTHER." if found["dropped"] else ""
    return said + other


def own_lines(found: Profile) -> list[tuple[str, str, str, int]]:
    """Return function, place, source and nanoseconds of the innermost own lines, the longest first.

    A stack without own code counts for its innermost frame with a file.
    """
    sums: dict[int, int] = {}
    frames = found["frames"]
    for sample in found["samples"]:
        stack = sample["stack"]
        files = [number for number in stack if frames[number][1]] or stack[-1:]
        own = [number for number in files if frames[number][3]] or files
        if own:
            sums[own[-1]] = sums.get(own[-1], 0) + sample["ns"]
    lines: list[tuple[str, str, str, int]] = []
    for entry, ns in sorted(sums.items(), key=lambda item: -item[1])[:MAX_LINES]:
        function, file, line, own_code = frames[entry]
        code = source.line(str(file), int(line)) if own_code else ""
        lines.append((str(function), source.where(str(file), int(line)), code, ns))
    return lines


def _by_label(found: Profile, label: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for sample in found["samples"]:
        value = sample["labels"].get(label)
        if value is not None:
            sums[value] = sums.get(value, 0) + sample["ns"]
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


# As text


def _text(found: Profile) -> str:
    whole = data.total_ns(found)
    rows: list[tuple[Any, ...]] = [
        (text.seconds(ns / 1e9), text.percent(ns / whole), where, function)
        for function, where, _, ns in own_lines(found)
    ]
    lines = text.table(("time", "share", "where", "line of your own code"), rows, right="01", ends="2") if rows else []
    return text.joined([f"Profile: {_TITLES.get(found['what'], found['what'])}", _sentence(found)], lines)
