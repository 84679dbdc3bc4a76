"""Addresses: what is taken, and that a bad one says what is wrong and what is expected."""

import subprocess
import sys

import pytest

from obsloop.base.address import MAX_SOCKET_PATH, PATHS, Address, base_url, parse_address, parse_addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ("[::1]:9464", ("::1", 9464)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("metrics.example.org:9464", ("metrics.example.org", 9464)),
    ],
)
def test_a_good_address_is_split(text, expected):
    """Host and port, the brackets of IPv6 taken off."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no port"),
        ("localhost", "no port"),
        ("9464", "no port"),
        (":9464", "no host"),
        ("[]:9464", "IPv6 addresses only"),
        ("::1:9464", "needs square brackets"),
        ("[::1]", "is not a port|needs square brackets"),
        ("[127.0.0.1]:9464", "IPv6 addresses only"),
        ("127.0.0.1:", "is not a port"),
        ("127.0.0.1:http", "is not a port"),
        ("127.0.0.1:65536", "is not a port"),
        ("127.0.0.1:-1", "is not a port"),
        ("127.0.0.1:1_0", "is not a port"),
        ("127.0.0.1: 80", "is not a port"),
        ("127.0.0.1:٣", "is not a port"),
        ("127.0.0.1:" + "9" * 5000, "is not a port"),
        ("http://127.0.0.1:9464", "needs square brackets|not a host"),
        ("a b:9464", "not a host"),
        ("a\x00b:9464", "not a host"),
    ],
)
def test_a_bad_address_says_what_is_wrong_and_what_is_expected(text, problem):
    """Each message names the fault and gives an example of what is accepted."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_address(text)
    assert "127.0.0.1:9464" in str(caught.value)


def test_several_addresses_each_with_its_paths():
    """What other machines may read beside what stays here; spaces may be anywhere."""
    public, local, socket = parse_addresses(
        "10.1.2.3:9464 /metrics /healthz,127.0.0.1:9464 ,  unix:///run/obsloop.sock /tasks /tasks"
    )
    assert public == Address("10.1.2.3:9464", "10.1.2.3", 9464, paths=("/metrics", "/healthz"))
    assert (local.host, local.port, local.paths) == ("127.0.0.1", 9464, PATHS)
    assert (socket.socket_path, socket.paths) == ("/run/obsloop.sock", ("/tasks",))


def test_a_port_alone_is_on_loopback():
    """Nothing that other machines could reach comes of an address that names no machine."""
    assert parse_addresses("9464") == [Address("127.0.0.1:9464", "127.0.0.1", 9464)]
    assert parse_addresses("0 /metrics") == [Address("127.0.0.1:0", "127.0.0.1", 0, paths=("/metrics",))]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no port in it; expected HOST:PORT"),
        ("127.0.0.1:1,", "an empty address before or after a comma"),
        ("127.0.0.1:1,,127.0.0.1:2", "an empty address before or after a comma"),
        (
            "127.0.0.1:1 /metric",
            "'/metric' is not a path of the service; did you mean /metrics\\? expected some of /, /m",
        ),
        ("127.0.0.1:1 /nothing/like", "is not a path of the service; expected some of /, /metrics"),
        ("127.0.0.1:1/metrics", "no space before the path; expected 127.0.0.1:1 /metrics"),
        ("127.0.0.1:1 127.0.0.1:2", "'127.0.0.1:2' is not a path; expected ADDRESS /PATH /PATH, with a comma before"),
        ("/metrics", "no port in it"),
        ("http://127.0.0.1:9464", "it is a URL; expected 127.0.0.1:9464$"),
        (
            "http://127.0.0.1:9464/metrics",
            "it is a URL; expected 127.0.0.1:9464, or 127.0.0.1:9464 /metrics for this path only$",
        ),
        ("http://localhost/metrics", "it is a URL; expected HOST:PORT"),
        ("9464, 127.0.0.1:9464", "the address 127.0.0.1:9464 is there twice"),
        ("94640", "'94640' is not a port, a whole number from 0 to 65535"),
        ("127.0.0.1:1, 127.0.0.1:1 /metrics", "the address 127.0.0.1:1 is there twice"),
        (",".join(f"127.0.0.1:{port}" for port in range(1, 10)), "there are 9 addresses in it; expected at most 8"),
        ("unix:obsloop.sock", "'obsloop.sock' is not an absolute path; expected unix: and an absolute path"),
        ("unix:", "is not an absolute path"),
        ("unix:/run/", "is a folder"),
        ("unix:/run/a\x00b", "cannot be printed"),
        ("unix:/" + "é" * 54, f"the path has 109 bytes; the system takes at most {MAX_SOCKET_PATH} for a Unix socket"),
    ],
)
def test_a_bad_list_of_addresses_says_what_is_wrong(text, problem):
    """With what is expected, and the nearest path where one is misspelt."""
    with pytest.raises(ValueError, match=problem):
        parse_addresses(text)


def test_the_paths_of_addresses_are_those_of_the_service():
    """The settings know them without loading the service."""
    from obsloop.service.routes import ROUTES

    assert tuple(ROUTES) == PATHS


def test_the_url_of_an_ipv6_address_has_brackets():
    """A URL without them would be read as a host and a strange port."""
    assert base_url("::1", 80) == "http://[::1]:80"
    assert base_url("localhost", 80) == "http://localhost:80"


def test_the_service_is_not_loaded_before_it_is_needed():
    """`import obsloop` pulls in no HTTP, no sockets of ours, no third-party module."""
    code = (
        "import sys, obsloop, obsloop.service\n"
        "late = {'obsloop.service.server', 'obsloop.service.routes', 'importlib.metadata', 'prometheus_client'}\n"
        "print(sorted(late & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
