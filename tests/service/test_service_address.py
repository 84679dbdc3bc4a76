"""Addresses: what is taken, and that a bad one says what is wrong and what is expected."""

import subprocess
import sys

import pytest

from obsloop.service.address import base_url, parse_address


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
