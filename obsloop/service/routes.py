"""Map paths to handlers: one table, and the handlers.

A handler reads snapshots, never the loop itself. It gives out metrics and names only: no arguments, no locals, no
payloads. A handler that runs in the service's own thread (`Route.thread` is None) must not wait for anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from obsloop.group import current, health
from obsloop.metrics import self_metrics
from obsloop.service.asked import sampling_seconds
from obsloop.service.messages import Request, Response, plain
from obsloop.service.timers import NEVER

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from obsloop.group.membership import Member

EXPORTERS = "obsloop.exporters"
_INSTALL = 'pip install "obsloop[prometheus]"'


@dataclass(frozen=True, slots=True)
class Options:
    """The settings that handlers need. In seconds."""

    unhealthy_after: float


@dataclass(frozen=True, slots=True)
class Route:
    """One path: a summary for the index, and its handler."""

    path: str
    summary: str
    handler: Callable[[Request, Options], Response]
    thread: str | None = "pages"
    """Which thread of server.py answers; None: the service's own, which must not wait."""
    lasts: Callable[[Request], float] | None = None
    """How many seconds the answer takes on purpose. Only one such answer is made at a time."""


class Exporter(Protocol):
    """What a call of an entry point of the group `obsloop.exporters` returns."""

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """Return content type and body for a client that accepts `accept`."""
        ...


class ExporterMissingError(Exception):
    """There is no exporter. The message says why and what to install."""


PRELOAD_SECONDS = 0.5
"""The exporter and the pages are loaded so long after the service's start, or at the first request. So neither the
start of many short processes nor the first scrape pays for them. Later, no descriptor may be left to read a file with.
"""

_exporter: Exporter | None = None


def find_exporter() -> Exporter:
    """Return the exporter `prometheus`, made once per process. Raise ExporterMissingError if there is none.

    It is found by its entry point, so that another package's exporter can take its place. A failure is not kept: the
    next scrape tries again, since the program may have been half-way through its imports.
    """
    global _exporter  # noqa: PLW0603  (this module owns the process's exporter)
    if _exporter is None:
        entry = _entry_point("prometheus")
        if entry is None:
            raise ExporterMissingError(
                "There is no exporter `prometheus`: obsloop is imported here from a folder, not from an "
                "installed package, so its exporters are not registered. Install it in the environment that "
                f"the observed program runs in: {_INSTALL} (in a checkout: pip install -e '.[prometheus]')"
            )
        try:
            make: Callable[[], Exporter] = entry.load()
        except ImportError as error:
            raise ExporterMissingError(
                f"The exporter `prometheus` ({entry.value}) cannot be imported: {error}. "
                f"Install what it needs in the environment that the observed program runs in: {_INSTALL}"
            ) from error
        _exporter = make()
    return _exporter


def _entry_point(name: str) -> EntryPoint | None:
    from importlib.metadata import entry_points  # noqa: PLC0415  (it is slow to load, and needed once)

    return next(iter(entry_points(group=EXPORTERS, name=name)), None)


def preload() -> float:
    """Load what the first scrape would load, once. Ignore failures: that scrape will answer with them."""
    with suppress(BaseException):  # an exporter of another package may raise anything
        find_exporter()
    with suppress(ImportError):  # an interpreter that was built without zlib
        import_module("gzip")
    return NEVER


def preload_pages() -> float:
    """Load what the pages need, once."""
    with suppress(ImportError, OSError):
        for name in ("overview", "slow", "tasks", "profile", "pprof"):
            import_module(f"obsloop.service.{name}")
    return NEVER


def metrics(request: Request, options: Options) -> Response:
    """Return the metrics in the format that the client accepts; without an exporter, 501 and what to install."""
    del options
    try:
        exporter = find_exporter()
    except ExporterMissingError as error:
        return plain(501, str(error))
    began_ns = perf_counter_ns()
    content_type, body = exporter.render(request.headers.get("accept"))
    self_metrics.add_time("scrape", perf_counter_ns() - began_ns)
    return Response(200, body, content_type)


def healthz(request: Request, options: Options) -> Response:
    """Answer 200 while each running loop moves on; 503 with the loop's name and the seconds if one is blocked.

    A loop that waits in its selector is healthy however long it waits. So is a process without a running loop. In a
    group, this is about the loops of all its processes. One that is silent, but not gone, counts as blocked.
    """
    del request
    member: Member | None = current.member
    here = health.running()
    states = {} if member is None else member.healths()
    blocked = {name: ns / 1e9 for name, ns in here.items() if ns / 1e9 > options.unhealthy_after}
    report: dict[str, Any] = {
        "status": "ok",
        "running": sorted(here),
        "blocked_seconds": {name: round(time, 3) for name, time in blocked.items()},
        "unhealthy_after_seconds": options.unhealthy_after,
    }
    if member is not None:
        report["running"] = sorted({*here, *(name for state in states.values() for name in state.loops)})
        report["workers"] = {str(number): _worker(state) for number, state in states.items()}
        for state in states.values():
            for name, ns in state.blocked.items():
                report["blocked_seconds"][name] = max(round(ns / 1e9, 3), report["blocked_seconds"].get(name, 0.0))
    if report["blocked_seconds"]:
        report["status"] = "blocked"
    blocked = report["blocked_seconds"]
    return Response(503 if blocked else 200, json.dumps(report).encode() + b"\n", "application/json")


def _worker(state: health.Health) -> dict[str, Any]:
    """Return the state of one process for JSON."""
    status = "ok"
    if state.blocked:
        status = "stuck" if state.silent_ns else "blocked"
    return {
        "process": state.process,
        "status": status,
        "blocked_seconds": {name: round(ns / 1e9, 3) for name, ns in state.blocked.items()},
        "silent_seconds": round(state.silent_ns / 1e9, 3),
        # Without the file: /healthz may be open to other machines.
        "blocked_by": [{"function": by.get("function"), "cause": by.get("cause")} for by in state.blocked_by],
    }


def slow(request: Request, options: Options) -> Response:
    """Return the last slow callbacks, slow iterations and blocks."""
    del options
    from obsloop.service.slow import slow  # noqa: PLC0415  (loaded at the first request)

    return slow(request)


def tasks(request: Request, options: Options) -> Response:
    """Return the live tasks and where they wait."""
    del options
    from obsloop.service.tasks import tasks  # noqa: PLC0415  (loaded at the first request)

    return tasks(request)


def profile(request: Request, options: Options) -> Response:
    """Return where loops were blocked, or where tasks wait."""
    del options
    from obsloop.service.profile import profile  # noqa: PLC0415  (loaded at the first request)

    return profile(request)


def pprof_index(request: Request, options: Options) -> Response:
    """Return what there is in pprof's format."""
    del options
    from obsloop.service.pprof import index  # noqa: PLC0415  (loaded at the first request)

    return index(request)


def pprof_profile(request: Request, options: Options) -> Response:
    """Sample the loops' threads for some seconds."""
    del options
    from obsloop.service.pprof import running  # noqa: PLC0415  (loaded at the first request)

    return running(request)


def overview(request: Request, options: Options) -> Response:
    """Return how much each loop is blocked, and by which lines."""
    del options
    from obsloop.service.overview import overview  # noqa: PLC0415  (loaded at the first request)

    return overview(request)


ROUTES: dict[str, Route] = {
    route.path: route
    for route in (
        Route("/", "how much each loop is blocked, and by which lines", overview),
        Route("/metrics", "all metrics, for Prometheus", metrics, "metrics"),
        Route("/healthz", "200 while each running loop moves on, 503 while one is blocked", healthz, None),
        Route("/slow", "the culprits of blocks, and the last slow callbacks, slow iterations and blocks", slow),
        Route("/tasks", "the live tasks, and where they wait", tasks),
        Route("/profile", "a flame graph of where loops were blocked, or of where tasks wait", profile),
        Route("/debug/pprof/", "what there is for go tool pprof and scrapers of profiles", pprof_index),
        Route(
            "/debug/pprof/profile",
            "sample the loops' threads for some seconds",
            pprof_profile,
            "profile",
            sampling_seconds,
        ),
    )
}
