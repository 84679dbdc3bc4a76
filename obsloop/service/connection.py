"""Hold what the service knows of a listening socket and of one client: received bytes, unsent bytes, deadline."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from obsloop.service.routes import Route

# From accept to the last byte. With a limit per read, a client could stay for ever.
CONNECTION_SECONDS = 10.0
# The same while the process is out of descriptors: it then serves one client at a time.
RESERVE_SECONDS = 2.0


class Connection:
    """One client: read until the head of its request is complete, write the answer, then wait until it hangs up."""

    __slots__ = (
        "deadline",
        "held",
        "lasts",
        "listener",
        "moved_at",
        "on_reserve",
        "outgoing",
        "path",
        "received",
        "sock",
    )

    def __init__(self, sock: socket.socket, listener: "Listener", now: float, *, on_reserve: bool) -> None:
        self.sock = sock
        self.listener = listener
        self.on_reserve = on_reserve
        self.deadline = now + self.seconds
        self.received = bytearray()
        self.path: str | None = None  # None until its request is read
        self.lasts = False  # whether its answer takes as long as the client asked
        self.outgoing: memoryview | None = None  # None until there is an answer; empty after all is sent
        self.held = 0  # memory in bytes that its answer takes until all is sent
        self.moved_at = now  # when the client last took some bytes

    @property
    def seconds(self) -> float:
        """How many seconds this connection may last, from its beginning to the last byte."""
        return RESERVE_SECONDS if self.on_reserve else CONNECTION_SECONDS

    def extend(self, seconds: float) -> None:
        """Give its answer so many seconds more: they are what the client asked for."""
        self.deadline += seconds
        self.lasts = True


@dataclass(eq=False, slots=True)
class Listener:
    """A listening socket, and the routes that are served there."""

    sock: socket.socket
    routes: Mapping[str, Route]
    checks_hosts: bool | None = None
    """Whether the host names of requests are checked; None: if they come to a loopback address."""
    give: Callable[[socket.socket], None] | None = None
    """For a socket that answers no requests: what to do with each client, without waiting, before it is hung up on."""
