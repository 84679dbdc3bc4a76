"""Parse a request's head and encode a response: HTTP/1.1 as far as this service needs it.

No sockets, no routes, no clock but for the Date header. Every connection carries one request and is then closed: so
there are no bodies, pipelines or keep-alive to get wrong. A scrape every few seconds does not need them.
"""

import re
import time
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD = 16 * 1024
MAX_BODY = 16 * 1024 * 1024
_COMPRESS_FROM = 1024  # bytes; below this, compressing gains nothing

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}\Z")
_VERSION = re.compile(r"HTTP/1\.[0-9]\Z")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler gets. Header names are in lower case; a repeated header is joined with commas."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    served: frozenset[str] = frozenset()
    """The paths that are served at the address to which the request came; empty: all."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler returns."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class RequestError(Exception):
    """A request that no handler gets; the client gets `response`."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = plain(status, text, *headers)


def plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """Return a short answer in words."""
    return Response(status, f"{text}\n".encode(), headers=headers)


def find_head(received: bytearray) -> int:
    """Return the length of the head with its empty line, 0 while that has not arrived.

    Raise RequestError as soon as it never can: a client that does not speak HTTP (a TLS hello, a port scan) gets its
    answer after its first byte, not after the time limit.
    """
    first = received[:1]
    if first and not first.isalpha() and first not in b"\r\n":
        raise RequestError(400, "This is not an HTTP request. The service speaks plain HTTP, no TLS.")
    for end in (b"\r\n\r\n", b"\n\n"):
        at = received.find(end)
        if at >= 0:
            return at + len(end)
    if len(received) > MAX_HEAD:
        raise RequestError(431, f"The request's head is larger than {MAX_HEAD} bytes.")
    return 0


def parse_head(head: bytes) -> Request:
    """Parse the request line and the headers. Raise RequestError on anything that is not HTTP/1.x."""
    if len(head) > MAX_HEAD:
        raise RequestError(431, f"The request's head is larger than {MAX_HEAD} bytes.")
    lines = head.decode("latin-1").replace("\r\n", "\n").lstrip("\n").split("\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not _METHOD.match(parts[0]) or not _VERSION.match(parts[2]):
        raise RequestError(400, "The request line is not of the form: GET /path HTTP/1.1")
    method, target, _ = parts
    headers: dict[str, str] = {}
    for line in lines[1:]:
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or not _FIELD_NAME.match(name):
            raise RequestError(400, "A header line is not of the form: Name: value")
        name, value = name.lower(), value.strip()
        if name == "host" and name in headers:  # as RFC 9112 wants it: else a second one could hide behind the first
            raise RequestError(400, "The request has more than one Host header.")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if method not in ("GET", "HEAD"):
        raise RequestError(405, "This service answers GET and HEAD only: it changes nothing.", ("Allow", "GET, HEAD"))
    if target[:7].lower() == "http://":  # the form that proxies send
        headers["host"], _, target = target[7:].partition("/")  # this host counts, not the header's
        target = "/" + target
    if not target.startswith("/"):
        raise RequestError(400, "The request's target does not begin with a slash.")
    path, _, query = target.partition("?")
    return Request(method, path, query, headers)


def encode(response: Response, request: Request | None) -> bytes:
    """Return the bytes of an answer to `request` (None if unreadable), compressed if the client accepts that."""
    body, headers = response.body, [*response.headers]
    if len(body) > MAX_BODY:
        return encode(plain(500, f"The answer is larger than {MAX_BODY} bytes."), request)
    if len(body) >= _COMPRESS_FROM:
        headers.append(("Vary", "Accept, Accept-Encoding"))
        if request is not None and _takes_gzip(request.headers.get("accept-encoding", "")):
            packed = _gzip(body)
            if packed is not None:
                body = packed
                headers.append(("Content-Encoding", "gzip"))
    headers = [
        ("Server", "obsloop"),
        ("Date", _http_date(time.time())),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Connection", "close"),
        *headers,
    ]
    # A header's value must not be able to end the head: an exporter may come from another package.
    lines = [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers]
    start = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"
    head = "\r\n".join([start, *lines, "", ""]).encode("latin-1", "replace")
    return head if request is not None and request.method == "HEAD" else head + body


def _takes_gzip(accept_encoding: str) -> bool:
    """Return whether Accept-Encoding names gzip without a weight of zero."""
    for choice in accept_encoding.split(","):
        name, _, weight = choice.partition(";")
        if name.strip().lower() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight, re.IGNORECASE)
    return False


def _gzip(body: bytes) -> bytes | None:
    """Return `body` compressed, or None on an interpreter that was built without zlib."""
    try:
        import gzip  # noqa: PLC0415
    except ImportError:
        return None
    # Level 1: a scrape's text shrinks tenfold at any level, and the observed program pays the CPU time.
    return gzip.compress(body, compresslevel=1, mtime=0)


def _http_date(timestamp: float) -> str:
    """Return a date as in RFC 9110. Not by strftime, whose names of days follow the program's locale."""
    t = time.gmtime(timestamp)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )
