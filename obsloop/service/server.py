"""Run the service's thread: it accepts, reads and writes with one selector, and answers /healthz.

Four more threads (answers.py) answer all other paths: `metrics`, `pages` for people, `group` for other processes, and
`profile`, which samples for as long as a client asks. They also do the work of timers: chores.py, and publishing for
the group. So /healthz waits for nothing, and a scrape only for other scrapes.

There is no thread per client. Slow and hostile clients hold only sockets, limited in number and time, and bytes,
limited in sum. messages.py knows HTTP, routes.py what is served, access.py which requests are refused.
"""

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from obsloop.base import clock
from obsloop.base.stderr import say_once
from obsloop.base.threads import start_without_signals
from obsloop.service import access
from obsloop.service.answers import LAST_RESORT, Answerer, answer, report
from obsloop.service.asked import BUSY
from obsloop.service.chores import own_timers
from obsloop.service.connection import Connection, Listener
from obsloop.service.messages import Request, RequestError, encode, find_head, parse_head, plain
from obsloop.service.routes import Options
from obsloop.service.timers import NEVER, Timer

MAX_CONNECTIONS = 64
MAX_UNSENT = 16 * 1024 * 1024
"""Bytes of all answers that their clients have not read yet; beyond that, the slowest readers are hung up on."""
# How much of each answer the kernel keeps, which would be megabytes otherwise. It doubles this number.
_SEND_BUFFER = 128 * 1024
_ACCEPTS_PER_PASS = 16
_PAUSE_SECONDS = 0.1
_THREADS = ("metrics", "pages", "group", "profile")


class Server:
    """A service on `listeners`, until the process ends. Where host names are checked, it answers to `hosts`."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        options: Options,
        hosts: frozenset[str] = frozenset(),
        timers: Sequence[Timer] = (),
    ) -> None:
        self._listeners = list(listeners)
        self._options = options
        self._hosts = hosts
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}  # in the order of their acceptance
        self._unsent = 0
        self._timers = [*timers, *own_timers()]
        self._added: deque[Listener] = deque()
        self._accept_at: float | None = None  # when to accept again; None while it does
        self._working = threading.Lock()
        self._answerers = {name: Answerer(f"obsloop-service-{name}", self._on_done) for name in _THREADS}
        self._done: deque[tuple[Answerer, Any]] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for sock in (self._wake_receiver, self._wake_sender):
            sock.setblocking(False)
        self._reserve: int | None = None  # a descriptor for accepting a client when the process has no other left

    def start(self) -> None:
        """Start the thread. The caller's signal mask stays as it was."""
        for listener in self._listeners:
            listener.sock.setblocking(False)
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._keep_reserve()
        thread = threading.Thread(target=self._serve, name="obsloop-service", daemon=True)
        start_without_signals(thread)

    def add(self, listener: Listener) -> None:
        """Serve on one more socket. From any thread."""
        listener.sock.setblocking(False)
        self._added.append(listener)
        with suppress(OSError):
            self._wake_sender.send(b"\0")

    def abandon(self) -> None:
        """Close this process's copies of the sockets. Only without threads: in a forked child, or before `start`."""
        for sock in [
            *(listener.sock for listener in (*self._listeners, *self._added)),
            *(connection.sock for connection in list(self._connections.values())),
            self._wake_receiver,
            self._wake_sender,
        ]:
            sock.close()  # no shutdown(): the parent goes on with the connection
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        self._selector.close()

    def pause(self, timeout: float) -> list[threading.Lock]:
        """Wait at most `timeout` seconds until the threads are idle. Return the locks that keep them so until `resume`.

        For fork: a child inherits locks as they are at that moment, above all of modules that are being imported. If a
        thread holds one, code in the child would wait for it for ever, since the thread is not in the child. A handler
        that hangs is waited for once, not at each fork.
        """
        end = clock.seconds() + timeout
        if not self._working.acquire(timeout=timeout):
            return []
        held = [self._working]
        for answerer in self._answerers.values():
            hangs = answerer.owner is not None and answerer.given_up_at == answerer.since
            if answerer.working.acquire(timeout=0 if hangs else max(0.0, end - clock.seconds())):
                held.append(answerer.working)
            else:
                answerer.given_up_at = answerer.since
        return held

    @staticmethod
    def resume(held: list[threading.Lock]) -> None:
        """Let the threads go on whose locks `pause` returned."""
        for lock in held:
            lock.release()

    def _serve(self) -> None:
        while True:
            try:
                ready = self._selector.select(self._timeout())
                with self._working:
                    self._pass([key.data for key, _ in ready])
            except BaseException:
                report("service-pass", "error in the service, which goes on")
                time.sleep(_PAUSE_SECONDS)  # so that no error makes it spin

    def _pass(self, ready: list[Connection | Listener | None]) -> None:
        """Serve what is `ready` (None: another thread has an answer), and close connections whose time is up."""
        for who in ready:
            if who is None:
                with suppress(BlockingIOError):
                    self._wake_receiver.recv(4096)
            elif isinstance(who, Listener):
                self._accept(who)
            else:
                self._step(who)
        while self._done:
            self._deliver(*self._done.popleft())
        now = clock.seconds()
        for connection in [c for c in self._connections.values() if c.deadline <= now]:
            self._expire(connection)
        self._do_what_is_due(now)
        self._keep_reserve()

    def _do_what_is_due(self, now: float) -> None:
        for timer in self._timers:
            if now >= timer.at:
                timer.at = NEVER
                if timer.thread is None:
                    timer.done(timer.work())
                elif not self._submit(timer.thread, timer, timer.work):
                    timer.done(None)
        while self._added:
            self._listeners.append(self._added.popleft())
            if self._accept_at is None:
                self._selector.register(self._listeners[-1].sock, selectors.EVENT_READ, self._listeners[-1])
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            for listener in self._listeners:
                self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    def _timeout(self) -> float | None:
        moments = [*(timer.at for timer in self._timers), *(c.deadline for c in self._connections.values())]
        if self._accept_at is not None:
            moments.append(self._accept_at)
        first = min(moments)
        return None if first == NEVER else max(0.0, first - clock.seconds())

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_PER_PASS):
            on_reserve = False
            try:
                sock, _address = listener.sock.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError as error:
                accepted = self._accept_on_reserve(listener) if error.errno in (errno.EMFILE, errno.ENFILE) else None
                if accepted is None:
                    if error.errno not in (errno.EMFILE, errno.ENFILE):
                        self._say_once("service-accept", f"the service cannot accept: {error.strerror or error}")
                    self._stop_accepting()
                    return
                sock, on_reserve = accepted, True
            if listener.give is not None:
                listener.give(sock)
                sock.close()
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                # Close the oldest, so that a new client is served even if others hold idle connections.
                self._close(next(iter(self._connections.values())))
            sock.setblocking(False)
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            connection = Connection(sock, listener, clock.seconds(), on_reserve=on_reserve)
            self._connections[sock.fileno()] = connection
            self._selector.register(sock, selectors.EVENT_READ, connection)
            self._step(connection)  # the request is often there already

    def _accept_on_reserve(self, listener: Listener) -> socket.socket | None:
        """Accept a client with the reserved descriptor, while the process has no other left. None if that fails."""
        if self._reserve is None:
            return None
        os.close(self._reserve)
        self._reserve = None
        try:
            return listener.sock.accept()[0]
        except OSError:  # the program took the descriptor first, or the client is gone
            return None

    def _keep_reserve(self) -> None:
        """Reserve a descriptor, unless there is one or a client uses it."""
        if self._reserve is None and not any(c.on_reserve for c in self._connections.values()):
            with suppress(OSError):
                self._reserve = os.dup(self._wake_sender.fileno())

    def _stop_accepting(self) -> None:
        """Pause accepting: a listener with a client in its queue stays readable, and the thread would spin."""
        if self._accept_at is None:
            self._accept_at = clock.seconds() + _PAUSE_SECONDS
            for listener in self._listeners:
                self._selector.unregister(listener.sock)

    def _step(self, connection: Connection) -> None:
        """Go on with one client as far as possible without waiting."""
        if connection.sock.fileno() < 0:
            return  # closed earlier in this same pass, to make room
        try:
            if connection.outgoing:
                self._write(connection)
            elif connection.outgoing is None and connection.path is None:
                self._read(connection)
            elif not connection.sock.recv(65536):
                if connection.outgoing is not None or connection.lasts:
                    self._close(connection)
                else:  # it has closed its side and waits for its answer
                    self._selector.unregister(connection.sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close(connection)  # the client is gone

    def _read(self, connection: Connection) -> None:
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
            access.check(request, hosts=self._hosts if self._checks_hosts(connection) else None)
            route = connection.listener.routes.get(request.path)
            if route is None:
                served = ", ".join(connection.listener.routes)
                raise RequestError(404, f"There is nothing at this path. Served here: {served}")
        except RequestError as error:
            self._send(connection, encode(error.response, request))
            return
        connection.received.clear()
        connection.path = request.path
        if route.thread is None:
            self._send(connection, answer(route, request, self._options))
            return
        request = replace(request, served=frozenset(connection.listener.routes))
        if route.lasts is not None:
            if self._answerers[route.thread].owner is not None:
                self._send(connection, encode(plain(503, BUSY, ("Retry-After", "30")), request))
                return
            connection.extend(route.lasts(request))
        if not self._submit(route.thread, connection, partial(answer, route, request, self._options)):
            text = "The service cannot start a thread to answer this. /healthz is answered without one."
            self._send(connection, encode(plain(503, text), request))

    def _checks_hosts(self, connection: Connection) -> bool:
        checks = connection.listener.checks_hosts
        return access.is_loopback(connection.sock) if checks is None else checks

    def _send(self, connection: Connection, data: bytes) -> None:
        connection.received.clear()
        connection.path = connection.path or ""
        connection.outgoing = memoryview(data)
        connection.held = len(data)
        connection.moved_at = clock.seconds()
        self._unsent += connection.held
        self._write(connection)
        while self._unsent > MAX_UNSENT:
            others = [c for c in self._connections.values() if c.held and c is not connection]
            if not others:
                break
            self._say_once("service-unsent", "the service hung up on a client: too many clients leave answers unread.")
            self._close(min(others, key=lambda c: c.moved_at))

    def _write(self, connection: Connection) -> None:
        assert connection.outgoing is not None  # noqa: S101  (for the type checker: _step ensures it)
        try:
            sent = connection.sock.send(connection.outgoing)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent:
            connection.moved_at = clock.seconds()
        connection.outgoing = connection.outgoing[sent:]
        if connection.outgoing:
            self._watch(connection, selectors.EVENT_WRITE)
            return
        self._let_go_of_answer(connection)
        # If the client has sent more than was read (a body), closing now would reset the connection, and the reset
        # would overtake the answer. So close this side only, and discard what comes until the client closes its side.
        connection.sock.shutdown(socket.SHUT_WR)
        self._watch(connection, selectors.EVENT_READ)

    def _watch(self, connection: Connection, event: int) -> None:
        try:
            self._selector.modify(connection.sock, event, connection)
        except KeyError:  # the client closed its side before its answer was ready
            self._selector.register(connection.sock, event, connection)

    def _let_go_of_answer(self, connection: Connection) -> None:
        self._unsent -= connection.held
        connection.held = 0
        connection.outgoing = memoryview(b"")  # an empty part of the answer would keep all of it

    def _expire(self, connection: Connection) -> None:
        if connection.outgoing is None:
            seconds = connection.seconds
            text = f"The request was not complete after {seconds:g} seconds."
            if connection.path is not None:
                text = f"{connection.path} did not answer within {seconds:g} seconds. Ask again later."
            with suppress(OSError):
                connection.sock.send(encode(plain(408 if connection.path is None else 503, text), None))
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        sock = connection.sock
        if sock.fileno() < 0:
            return
        self._connections.pop(sock.fileno(), None)
        with suppress(KeyError, ValueError, OSError):
            self._selector.unregister(sock)
        self._let_go_of_answer(connection)
        for answerer in self._answerers.values():
            answerer.forget(connection)
        if connection.on_reserve:
            # Not closed and opened again: the program could take the descriptor in between.
            descriptor = sock.detach()
            with suppress(OSError):
                os.dup2(self._wake_sender.fileno(), descriptor, inheritable=False)
            self._reserve = descriptor
            if self._accept_at is not None:
                self._accept_at = clock.seconds()
        else:
            sock.close()

    def _submit(self, name: str, owner: Any, work: Any) -> bool:
        """Have another thread do `work`. Return False if no thread can be started."""
        try:
            self._answerers[name].submit(owner if owner is not None else _NO_ONE, work)
        except (RuntimeError, MemoryError):
            return False
        return True

    def _say_once(self, key: str, line: str) -> None:
        """Let another thread write the line: if stderr is a full pipe, only that thread waits."""
        self._submit("pages", None, partial(say_once, key, line))

    def _on_done(self, answerer: Answerer, result: Any) -> None:
        """Pass a result to the service's thread. Called in the other thread."""
        self._done.append((answerer, result))
        with suppress(OSError):  # full: the service's thread is about to wake anyway
            self._wake_sender.send(b"\0")

    def _deliver(self, answerer: Answerer, result: Any) -> None:
        owner = answerer.finished()
        try:
            if isinstance(owner, Timer):
                owner.done(result)
            elif isinstance(owner, Connection) and owner.sock.fileno() >= 0 and owner.outgoing is None:
                try:
                    self._send(owner, result if isinstance(result, bytes) else LAST_RESORT)
                except OSError:
                    self._close(owner)  # the client is gone
        finally:
            answerer.go_on()


_NO_ONE = object()
