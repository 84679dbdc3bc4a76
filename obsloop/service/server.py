"""The service's thread: it accepts, reads, hands the request to a route and writes the answer, all in one
selector.

One thread and no thread per client, so that slow and hostile clients hold nothing but a socket of a bounded
number for a bounded time, and the observed program gets one thread more, not seventeen. Handlers run in this
thread: they must not wait. (One that has to, needs a thread of its own.) HTTP's form is in messages.py, what
is served in routes.py.
"""

import selectors
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from obsloop import _tasks
from obsloop._threads import start_without_signals
from obsloop.service.messages import Request, RequestError, Response, encode, find_head, parse_head, plain
from obsloop.service.routes import Options, Route, preload
from obsloop.service.say import say_error, say_once

MAX_CONNECTIONS = 64
# From accept to the last byte, however the client behaves: a time limit per read could be drawn out for ever.
CONNECTION_SECONDS = 10.0
_ACCEPTS_PER_PASS = 16
# The exporter is loaded when the program's start is over or at the first scrape, whichever is first: so
# neither the start of many short processes nor that first scrape pays for it.
_PRELOAD_AFTER_SECONDS = 0.5


class _Connection:
    """One client: bytes in until its request's head is there, bytes out, then nothing until it hangs up."""

    __slots__ = ("deadline", "outgoing", "received", "sock")

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.received = bytearray()
        self.outgoing: memoryview | None = None  # None while the request is read; empty when all is sent


class Server:
    """Serves `routes` on `listener`, which is bound already, until the process ends."""

    def __init__(self, listener: socket.socket, routes: Mapping[str, Route], options: Options) -> None:
        self._listener = listener
        self._routes = routes
        self._options = options
        self._selector = selectors.DefaultSelector()
        # In the order of their acceptance, which is the order of their deadlines.
        self._connections: dict[int, _Connection] = {}
        self._preload_at: float | None = None
        self._census_at = 0.0
        self._working = threading.Lock()

    def start(self) -> None:
        """Listen and start the thread. The caller's signal mask is put back as it was."""
        self._listener.setblocking(False)
        self._listener.listen(128)
        self._selector.register(self._listener, selectors.EVENT_READ)
        thread = threading.Thread(target=self._serve, name="obsloop-service", daemon=True)
        start_without_signals(thread)

    def abandon(self) -> None:
        """Close this process's copies of the sockets, where the thread does not exist (a child after fork) or
        not yet.
        """
        for sock in [self._listener, *(c.sock for c in list(self._connections.values()))]:
            sock.close()  # no shutdown(): the connection is the parent's and goes on there
        self._selector.close()

    def pause(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to be idle, and keep it there until `resume`.

        For fork: a child inherits locks as they are at that moment, of modules being imported above all, and whoever
        needs one that this thread held would wait for ever, since the thread is not in the child.
        """
        return self._working.acquire(timeout=timeout)

    def resume(self) -> None:
        """Let the thread go on after `pause` has returned True."""
        self._working.release()

    def _serve(self) -> None:
        self._preload_at = time.monotonic() + _PRELOAD_AFTER_SECONDS
        self._census_at = time.monotonic() + _tasks.CENSUS_SECONDS
        while True:
            try:
                ready = self._selector.select(self._timeout())
                with self._working:
                    self._pass([key.data for key, _ in ready])
            except Exception:  # nothing that a client does may end the service
                say_error("service-pass", "error in the service, which goes on")
                time.sleep(0.1)  # and no error may make it spin

    def _pass(self, ready: list[_Connection | None]) -> None:
        """Go on with who is `ready` (None is a newcomer), and send away whose time is up."""
        for connection in ready:
            if connection is None:
                self._accept()
            else:
                self._step(connection)
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if connection.deadline > now:
                break
            self._expire(connection)
        if self._preload_at is not None and now >= self._preload_at:
            self._preload_at = None
            preload()
        if now >= self._census_at:
            pause = _tasks.take_census()
            self._census_at = time.monotonic() + pause

    def _timeout(self) -> float:
        moments = [self._census_at, *(c.deadline for c in list(self._connections.values())[:1])]
        if self._preload_at is not None:
            moments.append(self._preload_at)
        return max(0.0, min(moments) - time.monotonic())

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_PASS):
            try:
                sock, _address = self._listener.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError as error:
                # Out of file descriptors, most likely: the listener stays readable, so wait rather than spin.
                say_once("service-accept", f"the service cannot accept a connection: {error.strerror or error}")
                time.sleep(0.1)
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                # The oldest goes, so that a newcomer is served although others hold connections open for
                # nothing.
                self._close(next(iter(self._connections.values())))
            sock.setblocking(False)
            connection = _Connection(sock, time.monotonic() + CONNECTION_SECONDS)
            self._connections[sock.fileno()] = connection
            self._selector.register(sock, selectors.EVENT_READ, connection)
            self._step(connection)  # the request is often there already

    def _step(self, connection: _Connection) -> None:
        """Go on with one client as far as its socket allows without waiting."""
        if connection.sock.fileno() < 0:
            return  # closed earlier in this same pass, to make room
        try:
            if connection.outgoing is None:
                self._read(connection)
            elif connection.outgoing:
                self._write(connection)
            elif not connection.sock.recv(65536):
                self._close(connection)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close(connection)  # the client went away: its business

    def _read(self, connection: _Connection) -> None:
        data = connection.sock.recv(65536)
        if not data:
            self._close(connection)
            return
        connection.received += data
        request: Request | None = None
        try:
            length = find_head(connection.received)
            if not length:
                return
            request = parse_head(bytes(connection.received[:length]))
            response = self._respond(request)
        except RequestError as error:
            response = error.response
        connection.received.clear()
        connection.outgoing = memoryview(encode(response, request))
        self._write(connection)

    def _respond(self, request: Request) -> Response:
        route = self._routes.get(request.path)
        if route is None:
            return plain(404, f"There is nothing at this path. Served here: {', '.join(self._routes)}")
        try:
            return route.handler(request, self._options)
        except Exception as error:
            # The client learns the kind only: a message may quote the program's data.
            say_error(f"service-handler-{route.path}-{type(error).__name__}", f"{route.path} failed")
            return plain(500, f"{route.path} failed with {type(error).__name__}; details are on the program's stderr.")

    def _write(self, connection: _Connection) -> None:
        assert connection.outgoing is not None  # noqa: S101  (for the type checker: _step sees to it)
        try:
            sent = connection.sock.send(connection.outgoing)
        except (BlockingIOError, InterruptedError):
            sent = 0
        connection.outgoing = connection.outgoing[sent:]
        if connection.outgoing:
            self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
            return
        # Closing now would reset the connection if the client has sent more than we read (a body), and the
        # reset would overtake the answer. So only this side closes, and what comes is thrown away until the
        # client does.
        connection.sock.shutdown(socket.SHUT_WR)
        self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _expire(self, connection: _Connection) -> None:
        if connection.outgoing is None:
            with suppress(OSError):
                connection.sock.send(
                    encode(
                        plain(408, f"The request was not complete after {CONNECTION_SECONDS:g} seconds."),
                        None,
                    )
                )
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self._connections.pop(connection.sock.fileno(), None)
        with suppress(KeyError, ValueError, OSError):
            self._selector.unregister(connection.sock)
        connection.sock.close()


def listen_on(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port`; raises OSError as bind and getaddrinfo do. No reverse look-up."""
    # As bytes: getaddrinfo sends text through the IDNA codec, whose tables take longer to load than all else here.
    name = host.encode() if host.isascii() else host
    family, kind, protocol, _, address = socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        # So that a restarted program gets its port back at once; on POSIX it does not share a port in use.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
