"""A listening socket, and one client of the service: what has come in, what is still to go out, and until when."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from obsloop.service.routes import Route

# From accept to the last byte, however the client behaves: a time limit per read could be drawn out for ever.
CONNECTION_SECONDS = 10.0
# The same while the process is out of descriptors, where one client at a time is served.
RESERVE_SECONDS = 2.0


class Connection:
    """One client: bytes in until its request's head is there, bytes out, then nothing until it hangs up."""

    __slots__ = ("deadline", "held", "listener", "moved_at", "on_reserve", "outgoing", "path", "received", "sock")

    def __init__(self, sock: socket.socket, listener: "Listener", now: float, *, on_reserve: bool) -> None:
        self.sock = sock
        self.listener = listener
        self.on_reserve = on_reserve
        self.deadline = now + self.seconds
        self.received = bytearray()
        self.path: str | None = None  # once its request is read
        self.outgoing: memoryview | None = None  # None until there is an answer; empty when all is sent
        self.held = 0  # bytes of memory that its answer takes until all is sent
        self.moved_at = now  # when the client last took something

    @property
    def seconds(self) -> float:
        """How long this connection may last, from its beginning to the last byte."""
        return RESERVE_SECONDS if self.on_reserve else CONNECTION_SECONDS


@dataclass(eq=False, slots=True)
class Listener:
    """A socket that listens already, and what is served there."""

    sock: socket.socket
    routes: Mapping[str, Route]
    checks_hosts: bool | None = None
    """Whether the host names of requests are checked; None: of those that come to a loopback address."""
