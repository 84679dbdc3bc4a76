"""Which requests are refused before any handler sees them: those that a web page sends without its reader's knowledge.

A page from anywhere can make a browser ask a service on loopback. Two things would let it read the answer: a host name
of the page's own that now points to 127.0.0.1 (DNS rebinding), or an answer that other sites may embed. The first has a
strange `Host`, the second says `Sec-Fetch-Site: cross-site`; programs such as curl and Prometheus send neither.
"""

import socket
from collections.abc import Iterable

from obsloop.service.messages import Request, RequestError


def names(allowed_hosts: str | None, own: Iterable[str]) -> frozenset[str]:
    """The host names of the setting `allowed_hosts`, and the hosts that the service's addresses were written with."""
    written = [*(allowed_hosts.split(",") if allowed_hosts else ()), *own]
    return frozenset(_tidy(name) for name in written if name.strip())


def is_loopback(sock: socket.socket) -> bool:
    """Whether a connection came to a loopback address of TCP. A browser cannot reach a Unix socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host: str = sock.getsockname()[0]
    return host.startswith(("127.", "::ffff:127.")) or host == "::1"


def check(request: Request, *, hosts: frozenset[str] | None) -> None:
    """Raise RequestError where `request` is refused. `hosts`: the names to answer to, None for any."""
    headers = request.headers
    if headers.get("sec-fetch-site") == "cross-site" and not _follows_a_link(request):
        raise RequestError(403, "A page of another site asked for this. Only pages of this service may.")
    host = _host(headers.get("host", ""))
    if hosts is not None and host and host not in hosts and not _is_local_name(host) and not _is_literal(host):
        raise RequestError(
            421,
            "The service does not answer under this host name, so that no web page can read it by pointing a name "
            "of its own here. Use localhost or an IP address, or put the name into OBSLOOP_ALLOWED_HOSTS.",
        )


def _follows_a_link(request: Request) -> bool:
    """Whether a person goes to the page, which no other page can then read."""
    headers = request.headers
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _tidy(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _host(value: str) -> str:
    """The host of a Host header, without port and brackets."""
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
