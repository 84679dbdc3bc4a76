"""The HTTP service: one daemon thread per process that answers /metrics, /healthz, /slow and /tasks while
the loop is blocked.

Standard library only, and nothing of it is loaded before an observed loop with an address is made:

    address.py    "host:port" to host and port
    lifecycle.py  the one service of this process: start, refuse, fork
    server.py     the thread: accept, read, answer, within limits of time and size
    messages.py   HTTP itself: bytes to Request, Response to bytes
    routes.py     what is served: one table from path to handler
    slow.py       /slow: the last slow callbacks, slow iterations and blocks
    tasks.py      /tasks: the live tasks, and where they wait
    pages.py      JSON for programs, plain pages for people
    say.py        lines on stderr
"""

from obsloop.service.address import parse_address

__all__ = ["ensure", "parse_address"]


def ensure(address: str, *, unhealthy_after: float) -> str | None:
    """Serve this process on `address`; return the base URL that is really served, or None where that failed.

    Never raises. Idempotent: there is one service in a process, and the first address that could be served
    wins. `unhealthy_after` (seconds) is how long a callback may last before /healthz answers 503; the first
    call's counts.
    """
    from obsloop.service import lifecycle  # noqa: PLC0415  (a program that is not served does not pay for it)

    return lifecycle.ensure(address, unhealthy_after=unhealthy_after)
