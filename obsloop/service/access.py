"""Refuse requests that a web page sends without its reader's knowledge, before any handler sees them.

Any page can make a browser send a request to a service on loopback. It could read the answer in two cases: if a host
name of its own now points to 127.0.0.1 (DNS rebinding), or if other sites may embed the answer. A request of the first
case has an unknown `Host`, one of the second `Sec-Fetch-Site: cross-site`. Programs such as curl and Prometheus send
neither.
"""

import socket
from collections.abc import Iterable

from obsloop.service.messages import Request, RequestError


def names(allowed_hosts: str | None, own: Iterable[str]) -> frozenset[str]:
    """Return the host names of the setting `allowed_hosts`, and those in the service's addresses."""
    written = [*(allowed_hosts.split(",") if allowed_hosts else ()), *own]
    return frozenset(_tidy(name) for name in written if name.strip())


def is_loopback(sock: socket.socket) -> bool:
    """Return whether a connection came to a loopback address of TCP. (A browser cannot reach a Unix socket.)"""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host: str = sock.getsockname()[0]
    return host.startswith(("127.", "::ffff:127.")) or host == "::1"


def check(request: Request, *, hosts: frozenset[str] | None) -> None:
    """Raise RequestError if `request` is refused. `hosts`: the names to answer to, None for any."""
    headers = request.headers
    if headers.get("sec-fetch-site") == "cross-site" and not _follows_a_link(request):
        raise RequestError(403, "A page of another site requested this. Only pages of this service may.")
    host = _host(headers.get("host", ""))
    if hosts is not None and host and host not in hosts and not _is_local_name(host) and not _is_literal(host):
        raise RequestError(
            421,
            "Unknown host name. The service refuses it, since a web page could point a name of its own here. "
            "Use localhost or an IP address, or put the name into OBSLOOP_ALLOWED_HOSTS.",
        )


def _follows_a_link(request: Request) -> bool:
    """Return whether a person follows a link here: no other page can read the answer then."""
    headers = request.headers
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _tidy(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _host(value: str) -> str:
    """Return the host of a Host header, without port and brackets."""
    value = value.strip()
    if value.startswith("["):
        host, _, port = value[1:].partition("]")
        return _tidy(host) if not port or port.startswith(":") else value
    return _tidy(value.partition(":")[0]) or value


def _is_local_name(host: str) -> bool:
    return host in ("localhost", "localhost.localdomain", "ip6-localhost") or host.endswith(".localhost")


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False
