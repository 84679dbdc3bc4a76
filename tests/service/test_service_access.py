"""Which requests are refused: those that a web page can make a browser send. Against a real service in this process."""

import socket

import pytest

from obsloop.service import access
from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_on, listen_unix
from obsloop.service.messages import Response
from obsloop.service.routes import Options, Route
from obsloop.service.server import Server

ROUTES = {"/ok": Route("/ok", "", lambda request, options: Response(200, b"fine"), None)}


def serve(sock, hosts=frozenset(), checks_hosts=None):
    """Start a service; return its address."""
    Server([Listener(sock, ROUTES, checks_hosts)], Options(1.0), hosts).start()
    return sock.getsockname()


def ask(address, *lines, target="/ok"):
    """The status, and the answer."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock:
        sock.settimeout(30)
        sock.connect(address)
        sock.sendall("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode())
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    return int(answer.split()[1]), answer.decode()


@pytest.fixture(scope="module")
def loopback():
    """A service on loopback whose user has allowed one name."""
    return serve(listen_on("127.0.0.1", 0), access.names("metrics.example.org, Other.Example.", ["box"]))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9464", "127.0.0.1", "LOCALHOST:80", "localhost.", "a.localhost:9464", "[::1]:9464", "[fe80::1%1]:1",
     "10.1.2.3:9464", "metrics.example.org", "METRICS.example.org:9464", "other.example", "box:9464", ""],
)  # fmt: skip
def test_loopback_answers_to_its_own_names(loopback, host):
    """IP addresses, localhost, what the user has configured: no page can have such a name."""
    assert ask(loopback, f"Host: {host}")[0] == 200


def test_a_request_without_a_host_is_no_browsers(loopback):
    """HTTP/1.0, or typed by hand."""
    assert ask(loopback)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:9464", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost",
     "notmetrics.example.org", "metrics.example.org.evil.example", "127.0.0.1, evil.example", "evil.example, localhost",
     "[::1].evil.example", ":9464", "user@127.0.0.1", "127.0.0.1@evil.example"],
)  # fmt: skip
def test_a_name_that_was_pointed_here_gets_nothing(loopback, host):
    """DNS rebinding: the page's own name leads to 127.0.0.1 now. The text says what to do if the name is the user's."""
    status, answer = ask(loopback, f"Host: {host}")
    assert status == 421
    assert "fine" not in answer
    assert "OBSLOOP_ALLOWED_HOSTS" in answer


def test_a_second_host_is_refused(loopback):
    """RFC 9112: joined with a comma, a foreign name could hide behind the port of a local one."""
    assert ask(loopback, "Host: localhost:1", "Host: evil.example")[0] == 400


def test_the_host_in_the_target_counts(loopback):
    """RFC 9112: where the target has a host, the header is ignored."""
    assert ask(loopback, "Host: localhost", target="http://evil.example/ok")[0] == 421
    assert ask(loopback, "Host: evil.example", target="http://localhost:9464/ok")[0] == 200


def test_what_comes_to_loopback_is_checked_on_a_service_for_all_interfaces():
    """0.0.0.0 includes 127.0.0.1, and a page can reach it there."""
    _, port = serve(listen_on("0.0.0.0", 0))
    assert ask(("127.0.0.1", port), "Host: evil.example")[0] == 421
    assert ask(("127.0.0.1", port), "Host: 127.0.0.1")[0] == 200


@pytest.mark.parametrize(("checks", "status"), [(None, 200), (True, 421)])
def test_elsewhere_names_count_only_where_some_are_configured(monkeypatch, checks, status):
    """A scraper uses whatever name the machine has."""
    monkeypatch.setattr(access, "is_loopback", lambda sock: False)
    address = serve(listen_on("127.0.0.1", 0), frozenset({"known.example"}), checks)
    assert ask(address, "Host: some.name")[0] == status
    assert ask(address, "Host: known.example")[0] == 200


def test_a_unix_socket_has_no_names(tmp_path):
    """No browser gets there."""
    address = serve(listen_unix(str(tmp_path / "s"), 0o600))
    assert ask(address, "Host: whatever.example")[0] == 200


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "cors", "empty", 403),
        ("cross-site", "no-cors", "image", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "navigate", "document", 200),  # a person follows a link
        ("same-origin", "cors", "empty", 200),
        ("same-site", "no-cors", "image", 200),  # Cross-Origin-Resource-Policy is for that
        ("none", "navigate", "document", 200),
    ],
)
def test_other_sites_pages_may_not_fetch(loopback, site, mode, dest, status):
    """By the headers that only a browser can write, and no page can change."""
    lines = [f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}"]
    assert ask(loopback, "Host: localhost", *lines)[0] == status


def test_every_answer_says_that_no_other_page_may_embed_it(loopback):
    """For browsers that know this header and not the others; errors too."""
    for host in ("localhost", "evil.example"):
        assert "\r\nCross-Origin-Resource-Policy: same-origin\r\n" in ask(loopback, f"Host: {host}")[1]
