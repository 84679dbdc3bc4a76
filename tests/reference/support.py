"""What many of these tests use: bounded runs of a loop, and protocols that remember what happened to them."""

import asyncio
import contextlib
import selectors
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which a test is taken to hang. Far above what the busiest machine needs.
LIMIT = 30.0


def run(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[T]) -> T:
    """Run the loop until `awaitable` is done, at most LIMIT seconds; its result."""
    return loop.run_until_complete(asyncio.wait_for(awaitable, LIMIT))


def run_forever(loop: asyncio.AbstractEventLoop) -> None:
    """`loop.run_forever()`, but a loop that nobody stops within LIMIT seconds fails the test."""
    hung: list[bool] = []

    def give_up() -> None:
        hung.append(True)
        loop.stop()

    guard = loop.call_later(LIMIT, give_up)
    try:
        loop.run_forever()
    finally:
        guard.cancel()
    assert not hung, "the loop was not stopped"


def run_batch(loop: asyncio.AbstractEventLoop) -> None:
    """Run one iteration: what is ready now runs, and nothing after it."""
    loop.stop()
    loop.run_forever()


class RecordingSelector(selectors.DefaultSelector):
    """A real selector that remembers the timeouts it was asked to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []

    def select(self, timeout: float | None = None) -> Any:
        """Poll, and note for how long."""
        self.timeouts.append(timeout)
        return super().select(timeout)


class Peer(asyncio.Protocol):
    """One end of a connection. `events` lists what happened to it, `data` what arrived.

    Make it while the loop runs. `await closed` waits for connection_lost, `await received(n)` for n bytes.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.transport: Any = None
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._arrival = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert self.transport is None
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        assert isinstance(data, bytes)
        self.data += data
        self._arrival.set()

    def eof_received(self) -> None:
        """Let the transport close itself."""
        self.events.append("eof")
        self._arrival.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: exactly once."""
        self.events.append("lost")
        self.closed.set_result(exc)

    async def received(self, count: int) -> bytes:
        """Wait for `count` bytes in all; everything that has arrived."""
        while len(self.data) < count and "eof" not in self.events:
            self._arrival.clear()
            await self._arrival.wait()
        return self.data


class Echo(Peer):
    """A peer that sends back what it gets."""

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        super().data_received(data)
        self.transport.write(data)


async def hang_up(*peers: Peer) -> None:
    """Close these ends and wait until each one knows it."""
    for peer in peers:
        peer.transport.close()
    for peer in peers:
        await peer.closed


async def exchange(peer: Peer, message: bytes) -> bytes:
    """Send a message to an Echo and return the answer."""
    before = len(peer.data)
    peer.transport.write(message)
    await peer.received(before + len(message))
    return peer.data[before:]


@contextlib.contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected non-blocking sockets, closed afterwards."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def listener(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
    """A bound, listening, non-blocking socket."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind(address)
    sock.listen()
    sock.setblocking(False)
    return sock


def unused_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Accepting:
    """A protocol factory that remembers what it made."""

    def __init__(self) -> None:
        self.peers: list[Echo] = []

    def __call__(self) -> Echo:
        self.peers.append(Echo())
        return self.peers[-1]

    async def all_closed(self) -> None:
        """Wait until every accepted connection has ended."""
        for peer in self.peers:
            if peer.transport is not None:  # a handshake that failed made no connection
                await peer.closed


async def end(server: asyncio.Server, factory: Accepting | None = None) -> None:
    """Close a server and what it accepted, and wait for it."""
    server.close()
    if factory is not None:
        await factory.all_closed()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def echo_server(host: str = "127.0.0.1", **options: Any) -> AsyncIterator[int]:
    """An echo server on a free port; gives the port. At the end it waits for its connections to end."""
    accepting = Accepting()
    server = await asyncio.get_running_loop().create_server(accepting, host, 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await end(server, accepting)


def fail(*args: Any) -> None:
    """A callback that raises."""
    raise LookupError("on purpose")
