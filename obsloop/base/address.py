"""Parse addresses of the service, and make URLs of them. Apart from the service, so that the settings can check an
address without loading it.

    127.0.0.1:9464                                           everything, on loopback
    9464                                                     the same
    127.0.0.1:9464, 10.1.2.3:9464 /metrics /healthz          the same, and two paths for other machines
    unix:/run/obsloop.sock                                   everything, on a Unix socket
"""

import os
import sys
from dataclasses import dataclass

from obsloop.base.suggest import did_you_mean

#: The paths that the service answers; `routes.ROUTES` has the same.
PATHS = ("/", "/metrics", "/healthz", "/slow", "/tasks", "/profile", "/debug/pprof/", "/debug/pprof/profile")
MAX_ADDRESSES = 8
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""In bytes: the room in the kernel's address of a Unix socket."""
UNIX = "unix:"

_LOOPBACK = "127.0.0.1"
_EXPECTED = "expected HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464 (port 0 picks a free one)"


def parse_address(text: str) -> tuple[str, int]:
    """Split `"host:port"` or `"[ipv6]:port"`. Raises ValueError that says what is wrong and what is expected.

    The host is not looked up here. A missing host is refused and does not mean every interface: write 0.0.0.0 or [::]
    for a service that other machines can reach.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"there is no port in it; {_EXPECTED}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"square brackets are for IPv6 addresses only; {_EXPECTED}")
    elif ":" in host or "[" in host or "]" in host:
        raise ValueError(f"an IPv6 address needs square brackets around it; {_EXPECTED}")
    if not host:
        raise ValueError(f"there is no host before the colon (0.0.0.0 is every interface); {_EXPECTED}")
    if any(c.isspace() or c in "/@?#" or not c.isprintable() for c in host):
        raise ValueError(f"{host!r} is not a host name or an IP address; {_EXPECTED}")
    # isdecimal alone accepts digits of other scripts; int() alone accepts signs, blanks and underscores.
    if not (port_text.isascii() and port_text.isdecimal()) or int(port_text[:6]) > 65535:
        raise ValueError(f"{port_text!r} is not a port, a whole number from 0 to 65535; {_EXPECTED}")
    return host, int(port_text)


@dataclass(frozen=True, slots=True)
class Address:
    """One address, and the paths that it serves."""

    text: str
    """The address as written, without the paths. A port alone is on loopback."""
    host: str = ""
    port: int = 0
    socket_path: str = ""
    """The path of a Unix socket, which has no host and no port."""
    paths: tuple[str, ...] = PATHS


def parse_addresses(text: str) -> list[Address]:
    """Parse a list `ADDRESS [PATH ...], ADDRESS [PATH ...]`. An address is `HOST:PORT`, `PORT` or `unix:/PATH`.

    An address without paths serves all of them. Raises ValueError that says what is wrong and what is expected.
    """
    parts = text.split(",")
    if len(parts) > MAX_ADDRESSES:
        raise ValueError(f"there are {len(parts)} addresses in it; expected at most {MAX_ADDRESSES}")
    found: list[Address] = []
    for part in parts:
        words = part.split()
        if not words and len(parts) > 1:
            raise ValueError(f"there is an empty address before or after a comma; {_EXPECTED}")
        address = _parse_one(words[0] if words else "", words[1:])
        if address.text in (other.text for other in found):
            raise ValueError(f"the address {address.text} is there twice; write all its paths behind one of them")
        found.append(address)
    return found


def _parse_one(word: str, paths: list[str]) -> Address:
    served = _parse_paths(paths) if paths else PATHS
    if word.startswith(UNIX):
        return Address(word, socket_path=_parse_socket_path(word.removeprefix(UNIX)), paths=served)
    if "://" in word:
        raise ValueError(f"it is a URL; {_in_place_of_url(word)}")
    if word.isascii() and word.isdecimal():
        word = f"{_LOOPBACK}:{word}"
    host, slash, path = word.partition("/")
    if slash and ":" in host and not path.startswith("/"):
        raise ValueError(f"there is no space before the path; expected {host} /{path}")
    host, port = parse_address(word)
    return Address(word, host, port, paths=served)


def _in_place_of_url(url: str) -> str:
    """Return what is expected in the place of a URL: its own host, port and path, if they are accepted."""
    place, slash, path = url.partition("://")[2].partition("/")
    path = "/" + path.rstrip("/")
    try:
        parse_address(place)
    except ValueError:
        return _EXPECTED
    only = f", or {place} {path} for this path only" if slash and path in PATHS[1:] else ""
    return f"expected {place}{only}"


def _parse_paths(words: list[str]) -> tuple[str, ...]:
    for word in words:
        if not word.startswith("/"):
            raise ValueError(
                f"{word!r} is not a path; expected ADDRESS /PATH /PATH, with a comma before the next address"
            )
        if word not in PATHS:
            hint = did_you_mean(word, PATHS)
            raise ValueError(f"{word!r} is not a path of the service; {hint}expected some of {', '.join(PATHS)}")
    return tuple(dict.fromkeys(words))


def _parse_socket_path(path: str) -> str:
    expected = "expected unix: and an absolute path, such as unix:/run/obsloop.sock"
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path; {expected}")
    path = "/" + path.lstrip("/")  # unix:///run/obsloop.sock is the same
    if path.endswith("/"):
        raise ValueError(f"{path!r} is a folder; {expected}")
    if not path.isprintable():
        raise ValueError(f"{path!r} has a character that cannot be printed; {expected}")
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise ValueError(
            f"the path has {length} bytes; the system takes at most {MAX_SOCKET_PATH} for a Unix socket. "
            "Choose a shorter one"
        )
    return path


def base_url(host: str, port: int) -> str:
    """Return `"http://host:port"`, with the brackets that an IPv6 address needs in a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
