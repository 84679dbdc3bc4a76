"""HTTP's form: heads that are read, heads that are refused, answers as bytes."""

import gzip
import re

import pytest

from obsloop.service.messages import (
    MAX_BODY,
    MAX_HEAD,
    Request,
    RequestError,
    Response,
    encode,
    find_head,
    parse_head,
)


def test_a_request_is_read():
    """Path and query apart, header names in lower case, a repeated header joined."""
    request = parse_head(b"GET /metrics?a=1 HTTP/1.1\r\nHost: x\r\nACCEPT: a\r\nAccept:  b \r\n\r\n")
    assert request == Request("GET", "/metrics", "a=1", {"host": "x", "accept": "a, b"})


def test_bare_line_feeds_and_the_form_of_proxies_are_read_too():
    """What curl through a proxy, or a person with netcat, sends."""
    assert parse_head(b"HEAD http://host:1/healthz HTTP/1.0\n\n").path == "/healthz"
    assert parse_head(b"GET http://host HTTP/1.1\r\n\r\n").path == "/"
    assert parse_head(b"\r\nGET / HTTP/1.1\r\n\r\n").path == "/"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_good_request_is_refused(head, status):
    """Each with the status that names the fault."""
    with pytest.raises(RequestError) as caught:
        parse_head(head)
    assert caught.value.response.status == status


def test_the_end_of_the_head_is_found_and_waiting_is_bounded():
    """0 while it has not come; refused at once where it never can, or where it is too large."""
    assert find_head(bytearray()) == 0
    assert find_head(bytearray(b"GET / HTTP/1.1\r\n")) == 0
    assert find_head(bytearray(b"GET / HTTP/1.1\r\n\r\nbody")) == 18
    with pytest.raises(RequestError, match="not an HTTP request"):
        find_head(bytearray(b"\x16\x03\x01\x02\x00\x01"))  # the first bytes of a TLS hello
    with pytest.raises(RequestError) as caught:
        find_head(bytearray(b"G" * (MAX_HEAD + 1)))
    assert caught.value.response.status == 431


def test_an_answer_has_its_length_and_tells_no_versions():
    """And HEAD gets the same head without the body."""
    response = Response(200, b"hello", "text/plain")
    answer = encode(response, Request("GET", "/"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 5\r\n" in head
    assert b"Server: obsloop\r\n" in head
    assert re.search(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
    assert body == b"hello"
    assert encode(response, Request("HEAD", "/")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("accept_encoding", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("br", False),
        ("", False),
    ],
)
def test_a_large_answer_is_compressed_where_the_client_takes_that(accept_encoding, packed):
    """And not where it does not, or refuses with a weight of zero."""
    body = b"asyncio_eventloop 1\n" * 1000
    head, _, sent = encode(
        Response(200, body), Request("GET", "/", "", {"accept-encoding": accept_encoding})
    ).partition(b"\r\n\r\n")
    assert (b"Content-Encoding: gzip" in head) is packed
    assert b"Vary: Accept, Accept-Encoding" in head
    assert f"Content-Length: {len(sent)}".encode() in head
    assert (gzip.decompress(sent) if packed else sent) == body


def test_no_header_of_a_handler_can_end_the_head():
    """An exporter may be a stranger's: its content type must not be able to write headers or a body."""
    head, _, body = encode(Response(200, b"x", "text/plain\r\nSet-Cookie: a\r\n\r\nfalse"), None).partition(b"\r\n\r\n")
    assert b"\r\nSet-Cookie" not in head
    assert body == b"x"


def test_an_answer_is_bounded():
    """More than the limit is an error of ours, not a download."""
    answer = encode(Response(200, b"x" * (MAX_BODY + 1)), Request("GET", "/"))
    assert answer.startswith(b"HTTP/1.1 500 ")
