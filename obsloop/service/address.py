"""Addresses of the service: text to host and port, and back to a URL. Imports nothing of the package, so that
the settings can check an address without loading the service.
"""

_EXPECTED = "expected HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464 (port 0 picks a free one)"


def parse_address(text: str) -> tuple[str, int]:
    """Split `"host:port"` or `"[ipv6]:port"`; raise ValueError that says what is wrong and what is expected.

    The host is not looked up here. A missing host is refused rather than taken to mean every interface:
    whoever wants to be reached from outside says so with 0.0.0.0 or [::].
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
    # isdecimal alone lets other scripts' digits through; int() alone lets signs, blanks and underscores
    # through.
    if not (port_text.isascii() and port_text.isdecimal()) or int(port_text[:6]) > 65535:
        raise ValueError(f"{port_text!r} is not a port, a whole number from 0 to 65535; {_EXPECTED}")
    return host, int(port_text)


def base_url(host: str, port: int) -> str:
    """`"http://host:port"`, with the brackets that an IPv6 address needs in a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
