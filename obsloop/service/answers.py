"""Answer requests that may take long, in threads with one request at a time each.

So the service's own thread never waits for a handler: not for a long list of tasks, and not for an exporter that hangs.
Whatever a handler does, its thread goes on and its client gets an answer. A thread calls `done` with its result.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from obsloop.base import clock
from obsloop.base.stderr import say_error
from obsloop.base.threads import start_without_signals
from obsloop.service import resting
from obsloop.service.messages import Request, Response, encode, plain
from obsloop.service.routes import Options, Route

LAST_RESORT = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Work = Callable[[], Any]


class Answerer:
    """One thread that answers. Only the service's thread calls its methods, except `_run`."""

    def __init__(self, name: str, done: Callable[["Answerer", Any], None]) -> None:
        self.waiting: deque[tuple[Any, Work]] = deque()
        """The owners that wait, at most one for each connection, and the work for each."""
        self.owner: Any = None
        """The owner of the present work; None while the thread is idle."""
        self.since = 0.0
        """When the present work began, by `clock.seconds`."""
        self.working = threading.Lock()
        """Held by the thread while it works."""
        self.gone = False
        """Whether the owner of the present work has hung up. Work that rests (resting.py) ends then."""
        self.given_up_at = -1.0
        """`since` of the work for which a fork has waited in vain."""
        self._name = name
        self._done = done
        self._work: SimpleQueue[Work] = SimpleQueue()
        self._started = False

    def submit(self, owner: Any, work: Work) -> None:
        """Queue `work` for `owner`. Raise RuntimeError if no thread can start."""
        self._ensure_thread()
        self.waiting.append((owner, work))
        self.go_on()

    def go_on(self) -> None:
        """Give the thread its next work, if it is idle."""
        if self.owner is None and self.waiting:
            self.owner, work = self.waiting.popleft()
            self.since = clock.seconds()
            self.gone = False
            self._work.put(work)

    def finished(self) -> Any:
        """Note that the thread is idle. Return the owner of its work."""
        owner, self.owner = self.owner, None
        return owner

    def forget(self, owner: Any) -> None:
        """Drop the queued work of `owner`. Work that has begun goes on, unless it looks at `gone`."""
        self.gone = self.gone or (owner is not None and owner is self.owner)
        self.waiting = deque(item for item in self.waiting if item[0] is not owner)

    def _ensure_thread(self) -> None:
        if not self._started:
            start_without_signals(threading.Thread(target=self._run, name=self._name, daemon=True))
            self._started = True

    def _run(self) -> None:
        resting.working(self)
        while True:
            work = self._work.get()
            result: Any = None
            with self.working:
                try:
                    result = work()
                except BaseException:
                    report(f"service-work-{self._name}", f"error in the service's thread {self._name}, which goes on")
                work = _nothing  # it may hold an answer of megabytes, or a request
            self._done(self, result)
            result = None


def _nothing() -> None:
    """Do nothing."""


def answer(route: Route, request: Request, options: Options) -> bytes:
    """Return the bytes of `route`'s answer, or of a 500 if its handler raises or returns nonsense. Never raises."""
    try:
        return encode(_checked(route.handler(request, options)), request)
    except resting.GoneError:
        return LAST_RESORT  # to no client
    except BaseException as error:  # an exporter may raise SystemExit or CancelledError; the service goes on
        try:
            name = ascii(type(error).__name__)[1:-1]
            report(f"service-handler-{route.path}-{name}", f"{route.path} failed")
            # The client gets only the error's type: its message may quote the program's data.
            text = f"{route.path} failed with {name}; details are on the program's stderr."
            return encode(plain(500, text), request)
        except BaseException:
            return LAST_RESORT


def _checked(response: Any) -> Response:
    """Return `response` if it can be sent; else raise a TypeError that says what is wrong with it."""
    if not isinstance(response, Response):
        raise TypeError(f"the handler returned {type(response).__name__}, expected a Response")
    body: Any = response.body
    content_type: Any = response.content_type
    if not isinstance(body, bytes):
        raise TypeError(f"the body is of type {type(body).__name__}, expected bytes: encode it")
    if not isinstance(content_type, str):
        raise TypeError(f"the content type is of type {type(content_type).__name__}, expected str")
    return response


def report(key: str, line: str) -> None:
    """Print the present exception on stderr, once for each `key`. Never raises."""
    with suppress(BaseException):
        say_error(key, line)
