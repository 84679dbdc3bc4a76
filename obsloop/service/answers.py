"""The threads that answer what may take long, one request at a time each, so that the service's own thread never waits
for a handler: not for a long list of tasks, and not for an exporter that hangs.

Nothing that a handler does may end a thread here or leave its client without an answer. What a thread has done goes
into `done`, and `wake` tells the service's thread.
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
from obsloop.service.messages import Request, Response, encode, plain
from obsloop.service.routes import Options, Route

LAST_RESORT = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Work = Callable[[], Any]


class Answerer:
    """One thread. All but `_run` is called by the service's thread only."""

    def __init__(self, name: str, done: Callable[["Answerer", Any], None]) -> None:
        self.waiting: deque[tuple[Any, Work]] = deque()
        """Who waits for the thread, and what it is to do; their number is that of the connections."""
        self.owner: Any = None
        """For whom the thread works now; None while it is idle."""
        self.since = 0.0
        """Since when, by `_clock.seconds`."""
        self.working = threading.Lock()
        """Held by the thread while it works."""
        self.given_up_at = -1.0
        """`since` of the work that a fork has waited for in vain."""
        self._name = name
        self._done = done
        self._work: SimpleQueue[Work] = SimpleQueue()
        self._started = False

    def submit(self, owner: Any, work: Work) -> None:
        """Have `work` done for `owner`, after those who came before. Raises RuntimeError where no thread can start."""
        self._ensure_thread()
        self.waiting.append((owner, work))
        self.go_on()

    def go_on(self) -> None:
        """Give the thread its next work, if it is idle."""
        if self.owner is None and self.waiting:
            self.owner, work = self.waiting.popleft()
            self.since = clock.seconds()
            self._work.put(work)

    def finished(self) -> Any:
        """Take note that the thread is idle; return for whom it worked."""
        owner, self.owner = self.owner, None
        return owner

    def forget(self, owner: Any) -> None:
        """Let `owner` wait no longer. What the thread works at already goes on."""
        self.waiting = deque(item for item in self.waiting if item[0] is not owner)

    def _ensure_thread(self) -> None:
        if not self._started:
            start_without_signals(threading.Thread(target=self._run, name=self._name, daemon=True))
            self._started = True

    def _run(self) -> None:
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
    """The bytes of `route`'s answer, or of a 500 whatever its handler raises or returns. Never raises."""
    try:
        return encode(_checked(route.handler(request, options)), request)
    except BaseException as error:  # an exporter may raise SystemExit or CancelledError: its fault, not the service's
        try:
            name = ascii(type(error).__name__)[1:-1]
            report(f"service-handler-{route.path}-{name}", f"{route.path} failed")
            # The client learns the kind only: a message may quote the program's data.
            text = f"{route.path} failed with {name}; details are on the program's stderr."
            return encode(plain(500, text), request)
        except BaseException:
            return LAST_RESORT


def _checked(response: Any) -> Response:
    """`response`, if it can be sent; raise TypeError that says what is wrong with it."""
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
    """Report the present exception on stderr, once for each `key`. Never raises."""
    with suppress(BaseException):
        say_error(key, line)
