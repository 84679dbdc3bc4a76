"""The route of the web request in which something ran: ``/orders/{number}``.

``obsloop.asgi.Middleware`` puts the request's scope into a context variable. The web framework writes the route that
matched into that scope: Starlette and FastAPI as ``route``, Litestar as ``path_template``. No code of the program runs.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import Any

from obsloop.introspect import attributes


class Request:
    """A request while it lasts. Tasks that it leaves behind keep this object, but not the scope."""

    __slots__ = ("_route", "_scope")

    def __init__(self, scope: Any) -> None:
        self._scope = scope
        self._route = ""

    def route(self) -> str:
        """Return the route, or an empty string if none is known yet. From any thread."""
        scope = self._scope
        return self._route if scope is None else _route_in(scope)

    def end(self) -> str:
        """Drop the scope, and return the route."""
        self._route, self._scope = self.route(), None
        return self._route


_current: ContextVar[Request] = ContextVar("obsloop_request")


def enter(scope: Any) -> Request:
    """Make a request the current one, in the context of the task that serves it."""
    request = Request(scope)
    _current.set(request)
    return request


def route_of(context: Context | None) -> str:
    """Return the route of the request to which ``context`` belongs; an empty string if there is none."""
    if context is None:
        return ""
    try:
        request = context.get(_current)
        return "" if request is None else request.route()
    except Exception:  # an object of a framework that we do not know
        return ""


def _route_in(scope: Any) -> str:
    path = attributes.text(attributes.get(attributes.item(scope, "route"), "path"))
    return attributes.clean(path or attributes.text(attributes.item(scope, "path_template")))
