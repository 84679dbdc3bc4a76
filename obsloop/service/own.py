"""What a process answers to the others of its group, on its private socket: its own metrics and reports, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from obsloop.group import current
from obsloop.group.membership import Member
from obsloop.service.messages import Request, Response, plain
from obsloop.service.routes import Options, Route


def own_metrics(request: Request, options: Options) -> Response:
    """Return this process's metrics, and publish them."""
    del request, options
    member: Member | None = current.member
    if member is None:
        return plain(404, "This process is in no group.")
    return Response(200, member.published(), "application/json")


def _overview(request: Request) -> dict[str, Any]:
    from obsloop.service.overview import report  # noqa: PLC0415  (loaded at the first request)

    return report(request.served)


def _slow(request: Request) -> dict[str, Any]:
    del request
    from obsloop.service.slow import report  # noqa: PLC0415  (as above)

    return report()


def _tasks(request: Request) -> dict[str, Any]:
    del request
    from obsloop.base import gc_pause  # noqa: PLC0415
    from obsloop.service.tasks import report  # noqa: PLC0415  (as above)

    with gc_pause.held:
        return report()


def _profile(request: Request) -> dict[str, Any]:
    from obsloop.service.profile import own  # noqa: PLC0415  (as above)

    return own(request)


def _handler(report: Callable[[Request], dict[str, Any]]) -> Callable[[Request, Options], Response]:
    def handler(request: Request, options: Options) -> Response:
        del options
        return Response(200, json.dumps(report(request), ensure_ascii=False).encode(), "application/json")

    return handler


OWN_ROUTES: dict[str, Route] = {
    "/own-metrics": Route("/own-metrics", "this process's metrics", own_metrics, "group"),
    **{
        path: Route(path, "this process's report", _handler(report), "group")
        for path, report in (("/", _overview), ("/slow", _slow), ("/tasks", _tasks), ("/profile", _profile))
    },
}
