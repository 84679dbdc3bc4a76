"""What a handler may do without harm to the service: raise anything, return anything, hang; and clients that take
nothing. Real sockets; what takes long waits for an event that the test sets.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from obsloop.service import routes
from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_on
from obsloop.service.messages import Response
from obsloop.service.routes import ROUTES, Options, Route
from obsloop.service.server import MAX_CONNECTIONS, MAX_UNSENT, Server

LARGE = 4 * 1024 * 1024


class Served:
    """A server with two paths that wait until they are let go, beside the real /healthz and /metrics."""

    def __init__(self):
        self.go_on = {"/tasks": threading.Event(), "/exporter": threading.Event()}
        self.begun = {"/tasks": threading.Event(), "/exporter": threading.Event()}
        self.raises = None
        own = [
            Route("/tasks", "", self.wait, "pages"),
            Route("/exporter", "", self.wait, "metrics"),
            Route("/raise", "", self.fail, "metrics"),
            Route("/raise-here", "", self.fail, None),
            Route("/large", "", lambda request, options: Response(200, bytes(LARGE)), "pages"),
            Route("/healthz", "", ROUTES["/healthz"].handler, None),
            Route("/metrics", "", ROUTES["/metrics"].handler, "metrics"),
        ]
        listener = listen_on("127.0.0.1", 0)
        self.server = Server([Listener(listener, {route.path: route for route in own})], Options(1.0))
        self.server.start()
        self.port = listener.getsockname()[1]

    def wait(self, request, options):
        self.begun[request.path].set()
        assert self.go_on[request.path].wait(60)
        return Response(200, b"at last")

    def fail(self, request, options):
        raise self.raises

    def get(self, path, timeout=30):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def ask(self, path):
        """Ask, and do not read."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        sock.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        return sock


@pytest.fixture
def served():
    """A server of its own for each test."""
    made = Served()
    yield made
    for event in made.go_on.values():
        event.set()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("path", ["/raise", "/raise-here"])
def test_no_exception_of_a_handler_ends_the_service(served, path, error):
    """SystemExit, KeyboardInterrupt and CancelledError are no `Exception`: each client gets its 500."""
    served.raises = error
    for _ in range(3):
        status, text = served.get(path)
        assert status == 500
        assert type(error).__name__.encode() in text
    assert served.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("returned", "expected"),
    [(("text/plain", "text"), 500), (("text/plain", None), 500), ((1, b"x"), 500), (None, 500), ("ab", 500),
     (("text/plain", b"x"), 200)],
)  # fmt: skip
def test_an_exporter_that_returns_the_wrong_thing_is_answered_for(served, monkeypatch, capsys, returned, expected):
    """A body of `str` left the client without any answer."""

    class Exporter:
        def render(self, accept):
            return returned

    monkeypatch.setattr(routes, "find_exporter", Exporter)
    monkeypatch.setattr("obsloop.base.log._logged", set())
    assert served.get("/metrics")[0] == expected
    if returned == ("text/plain", "text"):
        assert "the body is of type str, expected bytes" in capsys.readouterr().err
    assert served.get("/healthz")[0] == 200


def test_health_and_metrics_do_not_wait_for_a_list_of_tasks(served):
    """Each has a thread of its own; the list itself comes when it is ready."""
    with served.ask("/tasks") as sock:
        assert served.begun["/tasks"].wait(30)
        assert served.get("/healthz")[0] == 200
        assert served.get("/metrics")[0] == 200
        served.go_on["/tasks"].set()
        assert sock.recv(65536).endswith(b"at last")


def test_health_does_not_wait_for_an_exporter_that_hangs(served, monkeypatch):
    """It hangs; who waits behind it gets 503 when the time is up; when it comes back, so do the metrics."""
    with served.ask("/exporter"):
        assert served.begun["/exporter"].wait(30)
        assert served.get("/healthz")[0] == 200
        monkeypatch.setattr("obsloop.service.connection.CONNECTION_SECONDS", 0.3)
        status, text = served.get("/metrics")
        assert (status, b"/metrics did not answer within 0.3 seconds" in text) == (503, True)
        assert served.get("/healthz")[0] == 200
    monkeypatch.setattr("obsloop.service.connection.CONNECTION_SECONDS", 10.0)
    served.go_on["/exporter"].set()
    assert served.get("/metrics")[0] == 200


def test_a_hundred_who_wait_for_a_hanging_handler_keep_nobody_out(served):
    """They fill the table of connections; the oldest of them goes, and health is answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(served.ask("/exporter"))
        assert served.get("/healthz")[0] == 200
        waiting = sum(len(answerer.waiting) for answerer in served.server._answerers.values())
        assert waiting <= MAX_CONNECTIONS
    assert served.get("/healthz")[0] == 200


def test_a_client_that_has_hung_up_is_not_answered(served):
    """It went away while its answer was made: the answer is dropped, and the thread is free for the next."""
    sock = served.ask("/exporter")
    assert served.begun["/exporter"].wait(30)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()
    served.go_on["/exporter"].set()
    assert served.get("/metrics")[0] == 200


def test_a_client_that_has_closed_its_side_is_still_answered(served):
    """`nc -N` says that it has nothing to add, and reads on."""
    with served.ask("/exporter") as sock:
        sock.shutdown(socket.SHUT_WR)
        assert served.begun["/exporter"].wait(30)
        assert served.get("/healthz")[0] == 200
        served.go_on["/exporter"].set()
        assert sock.recv(65536).endswith(b"at last")


def test_clients_that_do_not_read_hold_a_bounded_sum_of_bytes(served):
    """64 clients ask for 4 MiB each. The service hangs up on the slowest readers and serves those that read."""
    most = 0
    with contextlib.ExitStack() as stack:
        for number in range(MAX_CONNECTIONS - 2):
            stack.enter_context(served.ask("/large"))
            if number % 8 == 7:
                assert served.get("/healthz")[0] == 200
                most = max(most, served.server._unsent)
        assert len(served.get("/large")[1]) == LARGE
        assert served.get("/healthz")[0] == 200
        held = sum(len(c.outgoing.obj) for c in list(served.server._connections.values()) if c.outgoing)
        assert held <= MAX_UNSENT
        assert 0 < most <= MAX_UNSENT + LARGE  # one answer more, until a client is hung up on for it
    deadline = time.monotonic() + 30
    while served.server._unsent and time.monotonic() < deadline:
        served.get("/healthz")
    assert served.server._unsent == 0


def test_no_thread_can_be_started(monkeypatch):
    """The path that needs one says so, and health needs none."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("obsloop.service.answers.start_without_signals", refuse)
    served = Served()
    status, text = served.get("/large")
    assert (status, b"cannot start a thread" in text) == (503, True)
    assert served.get("/healthz")[0] == 200


def test_a_fork_waits_once_for_a_handler_that_hangs(served):
    """Else each of a hundred forks of the program would take a second longer."""
    with served.ask("/exporter"):
        assert served.begun["/exporter"].wait(30)
        held = served.server.pause(0.2)
        Server.resume(held)
        assert len(held) == len(served.server._answerers)  # the service's thread and all but one of the others
        began = time.monotonic()
        for _ in range(100):
            Server.resume(served.server.pause(10.0))
        assert time.monotonic() - began < 10.0  # a single wait would have been as long
        served.go_on["/exporter"].set()
    assert served.get("/metrics")[0] == 200
    held = served.server.pause(10.0)
    Server.resume(held)
    assert len(held) == 1 + len(served.server._answerers)


def test_without_a_free_descriptor_it_still_answers():
    """When a program has leaked all its descriptors, its metrics are what one wants to see. One is kept for that."""
    code = """
import asyncio, os, resource, sys, time, obsloop

def exhaust():
    files = []
    try:
        while True:
            files.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return files

async def main():
    await asyncio.sleep(0)
    from obsloop.service import lifecycle
    url = lifecycle._state.url
    while "obsloop.service.tasks" not in sys.modules or lifecycle._state.server._answerers["metrics"].owner:
        await asyncio.sleep(0.05)  # what is loaded half a second after the start
    await asyncio.sleep(0.1)
    files = exhaust()
    print(url, flush=True)
    await asyncio.to_thread(sys.stdin.read)

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
obsloop.run(main(), settings=obsloop.Settings(address="127.0.0.1:0"))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        url = program.stdout.readline().strip()
        try:
            answers = []
            for path in ("/healthz", "/metrics", "/tasks", "/slow", "/metrics", "/healthz"):
                with urllib.request.urlopen(url + path, timeout=30) as answer:
                    answers.append((path, answer.status, len(answer.read()) > 10))
            # And with somebody who holds the only descriptor for nothing.
            with (
                socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))),
                urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer,
            ):
                answers.append(("/metrics", answer.status, True))
        finally:
            _, errors = program.communicate()
    assert len(answers) == 7, errors
    assert all(status == 200 and long for _, status, long in answers)
    assert program.returncode == 0, errors
