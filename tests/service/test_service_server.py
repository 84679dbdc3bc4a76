"""The thread against real sockets: friendly clients, broken handlers, hostile clients."""

import contextlib
import json
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest

from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_on
from obsloop.service.messages import Response
from obsloop.service.routes import Options, Route
from obsloop.service.server import MAX_CONNECTIONS, Server


def _broken(request, options):
    raise RuntimeError("secret: " + str(options))


def _large(request, options):
    return Response(200, b"0123456789abcdef" * 512 * 1024)


def _mask(request, options):
    return Response(200, str(sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, []))).encode())


ROUTES = {
    route.path: route
    for route in (
        Route("/ok", "", lambda request, options: Response(200, b"fine")),
        Route("/broken", "", _broken),
        Route("/large", "", _large),
        Route("/mask", "", _mask),
    )
}


@pytest.fixture(scope="module")
def port():
    """One server for all of this file: what one test does to it must not be felt by the next."""
    listener = listen_on("127.0.0.1", 0)
    Server([Listener(listener, ROUTES)], Options(1.0)).start()
    return listener.getsockname()[1]


def get(port, path="/ok", **kwargs):
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}{path}", **kwargs), timeout=60
    ) as answer:
        return answer.status, answer.read()


def refused(port, path="/ok", **kwargs):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(port, path, **kwargs)
    with caught.value as error:
        return error.code, error.headers, error.read().decode()


def talk(port, data):
    """Send raw bytes, return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        return answer


def test_get_head_and_what_is_not_there(port):
    """200, a HEAD without body, 404 that says what there is, 405 that says what is allowed."""
    assert get(port) == (200, b"fine")
    assert get(port, "/ok?x=1") == (200, b"fine")
    assert get(port, method="HEAD") == (200, b"")
    status, _, text = refused(port, "/../etc/passwd")
    assert status == 404
    assert "/ok, /broken" in text
    status, headers, _ = refused(port, data=b"x" * 300_000)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_a_broken_handler_answers_500_and_the_service_goes_on(port, capsys):
    """The client learns the kind of error and nothing of its text; stderr gets one line once."""
    for _ in range(3):
        status, _, text = refused(port, "/broken")
        assert status == 500
        assert "RuntimeError" in text
        assert "secret" not in text
    assert get(port) == (200, b"fine")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_large_answer_comes_whole_to_a_slow_reader(port):
    """8 MiB do not fit into a socket's buffer: the thread serves others between the parts."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert get(port) == (200, b"fine")
        answer = b""
        while chunk := sock.recv(1 << 20):
            answer += chunk
    assert answer.partition(b"\r\n\r\n")[2] == b"0123456789abcdef" * 512 * 1024


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\xff\xfe\x00garbage\r\n\r\n", 400),
        (b"GET /ok\r\n\r\n", 400),
        (b"G" * 100_000, 431),
        (b"GET /ok HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 431),
        (b"PUT /ok HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"z" * 100_000, 405),
    ],
)
def test_bytes_that_are_no_request_get_an_answer_and_are_let_go(port, data, status):
    """A TLS hello, garbage, HTTP/0.9, a head without end, a body: told what is wrong, and the next is served."""
    assert talk(port, data).startswith(b"HTTP/1.1 %d " % status)
    assert get(port) == (200, b"fine")


def test_a_request_may_come_a_byte_at_a_time(port):
    """Slow is not wrong."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        for byte in b"GET /ok HTTP/1.1\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert sock.recv(65536).endswith(b"fine")


def test_slow_clients_hold_nothing_but_a_socket_and_that_not_for_ever(port, monkeypatch):
    """Dripping a header line now and then does not draw out the time: it counts from the connection's start."""
    monkeypatch.setattr("obsloop.service.connection.CONNECTION_SECONDS", 1.0)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"GET /ok HTTP/1.1\r\n")
        began, answer = time.monotonic(), b""
        sock.settimeout(0.05)
        while time.monotonic() - began < 10:
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(65536)
                break
            with contextlib.suppress(OSError):
                sock.sendall(b"X-Drip: 1\r\n")
            assert get(port) == (200, b"fine")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_never_hangs_up_is_hung_up_on(port, monkeypatch):
    """It got its answer and holds the connection: the same limit of time ends it."""
    monkeypatch.setattr("obsloop.service.connection.CONNECTION_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"GET /ok HTTP/1.1\r\n\r\n")
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        assert answer.endswith(b"fine")
        # Gone altogether, not only half: sending now fails with a reset before long.
        end = time.monotonic() + 10
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                sock.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < end


def test_a_hundred_open_connections_keep_nobody_out(port):
    """The oldest of them are closed, the newcomer is served, and their number is bounded."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(100)]
        assert get(port) == (200, b"fine")
        closed = 0
        for sock in idle:
            sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                closed += sock.recv(1) == b""
        assert 100 - closed < MAX_CONNECTIONS
    assert get(port) == (200, b"fine")


def test_clients_that_vanish_leave_the_service_as_it_was(port):
    """A reset in the middle of a request or of an answer is the client's business."""
    for data in (b"GET /", b"GET /large HTTP/1.1\r\n\r\n"):
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", port), timeout=60)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            sock.sendall(data)
            sock.close()
    assert get(port) == (200, b"fine")


def test_the_programs_signals_never_go_to_the_service(port):
    """Its thread blocks them, except those that tell of its own faults; the starting thread's mask is
    untouched.
    """
    blocked = json.loads(get(port, "/mask")[1])
    assert {int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGCHLD), int(signal.SIGUSR1)} <= set(blocked)
    assert int(signal.SIGSEGV) not in blocked
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
