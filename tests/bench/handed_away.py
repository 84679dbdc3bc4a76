"""More works for the benchmark: what a loop does with threads, processes, addresses, and sockets of other kinds.

They have the form of those in ``works``.
"""

import asyncio
import functools
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.works import Loop, Work


def threadsafe(loop: Loop, n: int) -> int:
    """One ``call_soon_threadsafe`` of a thread that makes a thousand, and waits for the last one to run."""
    rounds = n // 1000

    def nothing() -> None:
        pass

    def calls() -> None:
        for _ in range(rounds):
            ran = threading.Event()
            for _ in range(999):
                loop.call_soon_threadsafe(nothing)
            loop.call_soon_threadsafe(ran.set)
            ran.wait()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=calls)
    thread.start()
    loop.run_forever()
    thread.join()
    return rounds * 1000


def getaddrinfo(loop: Loop, n: int) -> int:
    """One ``loop.getaddrinfo`` of an address."""

    async def main() -> None:
        for _ in range(n):
            await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    loop.run_until_complete(main())
    return n


def connections(loop: Loop, n: int) -> int:
    """One connection that is made, accepted and closed, both ends on this loop."""

    class Client(asyncio.Protocol):
        def __init__(self, done: "asyncio.Future[None]") -> None:
            self.done = done

        def connection_lost(self, exc: Exception | None) -> None:
            self.done.set_result(None)

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        for _ in range(n):
            done = loop.create_future()
            transport, _ = await loop.create_connection(functools.partial(Client, done), host, port)
            transport.close()
            await done
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    return n


def subprocesses(loop: Loop, n: int) -> int:
    """One ``true``, started and waited for. The CPU time of the child does not count."""

    async def main() -> None:
        for _ in range(n):
            child = await asyncio.create_subprocess_exec("true")
            await child.wait()

    loop.run_until_complete(main())
    return n


def udp(loop: Loop, n: int) -> int:
    """One datagram of 128 bytes there and back."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    class Pinger(asyncio.DatagramProtocol):
        left = n

        def __init__(self, done: "asyncio.Future[None]") -> None:
            self.done = done

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            transport.sendto(b"x" * 128)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.left -= 1
            if self.left:
                self.transport.sendto(data)
            else:
                self.done.set_result(None)

    async def main() -> None:
        there, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        done = loop.create_future()
        here, _ = await loop.create_datagram_endpoint(
            lambda: Pinger(done), remote_addr=there.get_extra_info("sockname")
        )
        await done
        here.close()
        there.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    return n


class _Echo(asyncio.Protocol):
    """Sends back what arrives, in as many writes as it is asked to."""

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.writes == 2:
            self.transport.write(data[:100])
            self.transport.write(data[100:])
        else:
            self.transport.write(data)


class _Pinger(asyncio.Protocol):
    """Sends a message again when all of it has come back."""

    def __init__(self, rounds: int, message: bytes, done: "asyncio.Future[None]") -> None:
        self.left, self.message, self.done = rounds, message, done
        self.got = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got < len(self.message):
            return
        self.got = 0
        self.left -= 1
        if self.left:
            self.transport.write(self.message)
        else:
            self.done.set_result(None)


def _echo(loop: Loop, n: int, *, size: int = 128, writes: int = 1, kind: str = "tcp") -> int:
    """One message there and back, over one connection."""

    async def main() -> None:
        done = loop.create_future()
        pinger, echo = functools.partial(_Pinger, n, b"x" * size, done), functools.partial(_Echo, writes)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "s")
            if kind == "unix":
                server = await loop.create_unix_server(echo, path)
                here, _ = await loop.create_unix_connection(pinger, path)
            else:
                theirs, ours = _contexts() if kind == "tls" else (None, None)
                server = await loop.create_server(echo, "127.0.0.1", 0, ssl=theirs)
                here, _ = await loop.create_connection(
                    pinger, *server.sockets[0].getsockname(), ssl=ours, server_hostname=ours and "localhost"
                )
            await done
            here.close()
            server.close()
            await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    return n


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme  # only this work needs it

    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    return theirs, ours


def sock_methods(loop: Loop, n: int) -> int:
    """One message of 128 bytes there and back by ``sock_sendall`` and ``sock_recv``."""

    async def serve(sock: socket.socket) -> None:
        while data := await loop.sock_recv(sock, 1000):
            await loop.sock_sendall(sock, data)

    async def main() -> None:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.setblocking(False)
            serving = asyncio.ensure_future(serve(there))
            for _ in range(n):
                await loop.sock_sendall(here, b"x" * 128)
                await loop.sock_recv(here, 1000)
            here.shutdown(socket.SHUT_WR)
            await serving

    loop.run_until_complete(main())
    return n


def echo(**how: Any) -> Callable[[Loop, int], int]:
    """A work of ``_echo``."""
    return functools.partial(_echo, **how)


#: name in the table -> (work, operations in one measured run)
WORKS: dict[str, tuple[Work, int]] = {
    "call_soon_threadsafe, bursts": (threadsafe, 100_000),
    "getaddrinfo of an address": (getaddrinfo, 4_000),
    "connect, accept, close": (connections, 1_500),
    "subprocess": (subprocesses, 150),
    "UDP echo": (udp, 6_000),
    "echo of 100 KiB": (echo(size=102_400), 1_500),
    "echo in two writes": (echo(size=200, writes=2), 8_000),
    "TLS echo": (echo(kind="tls"), 5_000),
    "Unix echo": (echo(kind="unix"), 8_000),
    "sock_recv, sock_sendall": (sock_methods, 8_000),
}
