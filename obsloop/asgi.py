"""Measure how each request of an ASGI application uses the loop; on its span, or also in a ``Server-Timing`` header.

It measures with ``obsloop.measure_tasks``, so inner tasks are included. It needs no framework. It uses OpenTelemetry
if the program has loaded it. If the middleware fails, the application runs as it would without it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from obsloop.base.guarded import goes_on as _goes_on, guarded as _guarded, harmless as _harmless
from obsloop.base.log import first_time as _first_time, logger as _log
from obsloop.introspect.routes import enter as _enter
from obsloop.probes.requests import ended as _ended
from obsloop.probes.tasks import TaskTimes as _TaskTimes, measure_tasks as _measure_tasks

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[Any]]


class Middleware:
    """An ASGI 3 middleware that measures where the time of each request went, its inner tasks included.

    Write ``app.add_middleware(obsloop.asgi.Middleware)`` in FastAPI and Starlette, or ``Middleware(app)`` around any
    ASGI application. It measures three times and a number, as ``obsloop.measure_tasks`` does. *running* and *waiting*
    (for the loop) are sums over the request's task and its inner tasks. *suspended* is the time of the request's own
    task only, including the time that it waits for an inner task. *steps* is the number of steps.

    For HTTP requests and WebSocket connections it sets the attributes ``asyncio.task.running``, ``.waiting``,
    ``.suspended`` (seconds) and ``.steps`` on the OpenTelemetry span that is current when the middleware is called. So
    put it inside the middleware that begins that span. The attributes are set before the last part of the response is
    sent, since instrumentations end the span then. If the span is still open at the end, they are set once more.

    The same times are counted by route in ``asyncio.request.time`` and ``asyncio.request.count``, and what blocks the
    loop in a request has its route, if the framework says which: Starlette, FastAPI and Litestar do.

    ``server_timing=True`` adds a ``Server-Timing`` header to each response. A callable gets the scope of each request
    and returns whether its response has the header. The header is sent with the start of the response, so it has the
    times up to then. It is off by default, since it shows strangers something about the server.
    """

    def __init__(self, app: _App, *, server_timing: bool | Callable[[_Scope], bool] = False) -> None:
        if not isinstance(server_timing, bool) and not callable(server_timing):
            raise TypeError(
                "server_timing must be True, False, or a callable that takes the scope and returns one of them,"
                f" not {type(server_timing).__name__}"
            )
        self.app = app
        self.server_timing = server_timing

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> Any:
        """Run the application for one request or connection, and measure it."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        request = _Request(send)
        _guarded(request.begin, scope, self.server_timing)
        if not request.measured:  # the reason is logged
            return await self.app(scope, receive, send)
        try:
            return await self.app(scope, receive, request.send)
        finally:
            _guarded(request.end)


class _Request:
    """One request while it is measured."""

    __slots__ = ("_header", "_loop", "_measure", "_request", "_send", "_span", "_task", "_trailers", "measured")

    def __init__(self, send: _Send) -> None:
        self.measured = False
        self._send = send
        self._header = self._trailers = False

    def begin(self, scope: _Scope, server_timing: bool | Callable[[_Scope], bool]) -> None:
        """Start measuring, if the loop is observed."""
        self._span = _active_span()
        if scope["type"] == "http":
            self._header = server_timing if isinstance(server_timing, bool) else _asked(server_timing, scope)
        try:
            self._measure = _measure_tasks().__enter__()
        except RuntimeError as error:  # not observed, or not asyncio's
            _tell_once("loop", "obsloop.asgi.Middleware measures nothing: %s. The application runs without it.", error)
            return
        self._request = _enter(scope)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self.measured = True

    async def send(self, message: _Message) -> None:
        """Send a message of the application. One of its inner tasks may call this."""
        box = [message]
        _guarded(self._look_at, box)
        await self._send(box[0])

    def _look_at(self, box: list[_Message]) -> None:
        """Replace the message in the list by the one to send. The application's own object is not changed."""
        message = box[0]
        kind = message["type"]
        if kind == "http.response.start":
            self._trailers = bool(message.get("trailers"))
            if self._header:
                ours = (b"server-timing", _server_timing_of(self._measure.times()))
                headers: Iterable[Any] = message.get("headers") or ()
                box[0] = {**message, "headers": [*headers, ours]}
        elif self._span is not None and _is_last(message, self._trailers):
            _set_attributes(self._span, self._measure.times())

    def end(self) -> None:
        """Stop measuring: the application has ended the request, has failed, or was cancelled."""
        route = self._request.end()
        if asyncio.current_task(self._loop) is not self._task:
            return  # the coroutine is closed from outside of its task: there is nothing to measure
        self._measure.__exit__(None, None, None)
        times = self._measure.times()
        _ended(self._loop, route, times)
        if self._span is not None:
            _set_attributes(self._span, times)


def _asked(server_timing: Callable[[_Scope], bool], scope: _Scope) -> bool:
    """Return what the program's ``server_timing`` says of a request; False if it raises."""
    try:
        return bool(server_timing(scope))
    except BaseException as error:
        if _goes_on(error):
            raise
        _tell_once(
            "server_timing",
            "obsloop.asgi.Middleware: server_timing(scope) raised %s. Such responses have no Server-Timing header.",
            type(error).__name__,
            exc_info=True,
        )
        return False


def _tell_once(what: str, line: str, *args: object, exc_info: bool = False) -> None:
    if _first_time(f"asgi: {what}"):
        with _harmless:  # one of the program's logging handlers may raise
            _log.warning(line, *args, exc_info=exc_info)


def _server_timing_of(times: _TaskTimes) -> bytes:
    """Return the header's value: milliseconds, in the syntax of W3C Server Timing."""
    return (
        f'loop;dur={times.running * 1e3:.1f};desc="running", wait;dur={times.waiting * 1e3:.1f},'
        f" suspended;dur={times.suspended * 1e3:.1f}"
    ).encode("ascii")


def _is_last(message: _Message, trailers: bool) -> bool:
    """Return whether the response ends with this message."""
    match message["type"]:
        case "http.response.body" | "http.response.zerocopysend":
            return not trailers and not message.get("more_body")
        case "http.response.pathsend":
            return not trailers
        case "http.response.trailers":
            return not message.get("more_trailers")
        case _:
            return False


def _active_span() -> Any:
    """Return OpenTelemetry's current span if it records; None if there is none, or OpenTelemetry is not loaded."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span()
    return span if span.is_recording() else None


def _set_attributes(span: Any, times: _TaskTimes) -> None:
    if span.is_recording():  # else it has ended, and would log a warning
        span.set_attributes(
            {
                "asyncio.task.running": times.running,
                "asyncio.task.waiting": times.waiting,
                "asyncio.task.suspended": times.suspended,
                "asyncio.task.steps": times.steps,
            }
        )
