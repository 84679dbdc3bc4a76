"""create_datagram_endpoint: addresses, options, errors."""

import asyncio
import socket
import subprocess
import sys

import pytest

from .support import run, unused_port


class Datagrams(asyncio.DatagramProtocol):
    """Keeps what arrives; `await next()` for the next datagram and its sender."""

    def __init__(self):
        self.transport = None
        self.arrived = asyncio.Queue()
        self.errors = asyncio.Queue()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        assert self.transport is None
        self.transport = transport

    def datagram_received(self, data, addr):
        self.arrived.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def connection_lost(self, exc):
        self.closed.set_result(exc)

    async def close(self):
        self.transport.close()
        assert await self.closed is None


class EchoDatagrams(Datagrams):
    """Sends each datagram back to where it came from."""

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


LOCAL = ("127.0.0.1", 0)


def test_local_and_remote(loop):
    """One endpoint bound by local_addr, one connected by remote_addr: datagrams go and come back."""

    async def main():
        transport, server = await loop.create_datagram_endpoint(EchoDatagrams, LOCAL)
        assert isinstance(transport, asyncio.BaseTransport)
        assert server.transport is transport
        address = transport.get_extra_info("sockname")
        transport, client = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
        assert transport.get_extra_info("peername") == address
        transport.sendto(b"one")
        transport.sendto(b"two")
        assert await client.arrived.get() == (b"one", address)
        assert await client.arrived.get() == (b"two", address)
        with pytest.raises(ValueError, match="Invalid address"):
            transport.sendto(b"elsewhere", ("127.0.0.1", 1))
        await client.close()
        await server.close()

    run(loop, main())


def test_names_are_looked_up(loop):
    """Both hosts go through getaddrinfo, with family, proto and flags."""

    async def main():
        _, server = await loop.create_datagram_endpoint(
            EchoDatagrams, ("localhost", 0), family=socket.AF_INET, proto=socket.IPPROTO_UDP, flags=0
        )
        port = server.transport.get_extra_info("sockname")[1]
        _, client = await loop.create_datagram_endpoint(
            Datagrams, ("127.0.0.2", 0), ("localhost", port), family=socket.AF_INET
        )
        assert client.transport.get_extra_info("sockname")[0] == "127.0.0.2"
        client.transport.sendto(b"by name")
        assert (await client.arrived.get())[0] == b"by name"
        await client.close()
        await server.close()

    run(loop, main())


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python was built without IPv6")
def test_ipv6(loop):
    """A numeric IPv6 host gives an IPv6 socket."""

    async def main():
        _, endpoint = await loop.create_datagram_endpoint(EchoDatagrams, ("::1", 0))
        assert endpoint.transport.get_extra_info("socket").family == socket.AF_INET6
        await endpoint.close()

    run(loop, main())


def test_family_alone(loop):
    """With neither address the family is enough, and needed."""

    async def main():
        _, endpoint = await loop.create_datagram_endpoint(Datagrams, family=socket.AF_INET)
        _, other = await loop.create_datagram_endpoint(Datagrams, LOCAL)
        endpoint.transport.sendto(b"out of the blue", other.transport.get_extra_info("sockname"))
        assert (await other.arrived.get())[0] == b"out of the blue"
        await endpoint.close()
        await other.close()
        with pytest.raises(ValueError, match="unexpected address family"):
            await loop.create_datagram_endpoint(Datagrams)

    run(loop, main())


def test_allow_broadcast(loop):
    """allow_broadcast sets the socket's option; without it, the option is off."""

    async def main():
        for allow in (None, True):
            _, endpoint = await loop.create_datagram_endpoint(Datagrams, LOCAL, allow_broadcast=allow)
            sock = endpoint.transport.get_extra_info("socket")
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)) is bool(allow)
            await endpoint.close()

    run(loop, main())


def test_reuse_port(loop):
    """Two endpoints share a port when both set reuse_port, and otherwise not."""

    async def main():
        _, one = await loop.create_datagram_endpoint(Datagrams, LOCAL, reuse_port=True)
        address = one.transport.get_extra_info("sockname")
        _, two = await loop.create_datagram_endpoint(Datagrams, address, reuse_port=True)
        assert two.transport.get_extra_info("sockname") == address
        with pytest.raises(OSError, match="in use"):
            await loop.create_datagram_endpoint(Datagrams, address)
        await one.close()
        await two.close()

    run(loop, main())


def test_sock(loop):
    """sock= takes a socket of the caller's; addresses beside it, or a stream socket, are a ValueError."""

    async def main():
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind(LOCAL)
        for kwargs in ({"local_addr": LOCAL}, {"remote_addr": LOCAL}, {"family": socket.AF_INET}):
            with pytest.raises(ValueError, match="socket modifier keyword arguments can not be used"):
                await loop.create_datagram_endpoint(Datagrams, sock=sock, **kwargs)
        _, endpoint = await loop.create_datagram_endpoint(EchoDatagrams, sock=sock)
        assert endpoint.transport.get_extra_info("socket").fileno() == sock.fileno()
        await endpoint.close()
        with socket.socket() as stream, pytest.raises(ValueError, match=r"ocket was expected"):
            await loop.create_datagram_endpoint(Datagrams, sock=stream)

    run(loop, main())


def test_unix_datagrams(loop, tmp_path):
    """family=AF_UNIX takes paths for addresses."""
    paths = [str(tmp_path / name) for name in ("server", "client")]

    async def main():
        _, server = await loop.create_datagram_endpoint(EchoDatagrams, paths[0], family=socket.AF_UNIX)
        _, client = await loop.create_datagram_endpoint(Datagrams, paths[1], paths[0], family=socket.AF_UNIX)
        client.transport.sendto(b"by path")
        assert await client.arrived.get() == (b"by path", paths[0])
        await client.close()
        await server.close()

    run(loop, main())


def test_nobody_there_is_error_received(loop):
    """A refused datagram is told to error_received, and the endpoint lives on."""

    async def main():
        _, endpoint = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", unused_port()))
        endpoint.transport.sendto(b"anybody?")
        assert isinstance(await endpoint.errors.get(), ConnectionRefusedError)
        assert not endpoint.transport.is_closing()
        await endpoint.close()

    run(loop, main())


def test_abort(loop):
    """abort() drops what is buffered and ends with connection_lost(None)."""

    async def main():
        transport, endpoint = await loop.create_datagram_endpoint(Datagrams, LOCAL)
        transport.abort()
        assert await endpoint.closed is None

    run(loop, main())


def test_a_bad_address(loop):
    """An address that is no pair is a TypeError."""

    async def main():
        with pytest.raises(TypeError):
            await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1",))

    run(loop, main())


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_addresses_are_those_of_a_plain_socket(loop, family, host):
    """The sender's address has the form that a socket gives, and a datagram sent to it arrives. Names work too."""

    async def main():
        transport, server = await loop.create_datagram_endpoint(Datagrams, (host, 0), family=family)
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            peer.settimeout(10)
            peer.sendto(b"there", transport.get_extra_info("sockname"))
            data, address = await server.arrived.get()
            assert data == b"there"
            assert address == peer.getsockname()
            assert [type(part) for part in address] == [type(part) for part in peer.getsockname()]
            named = ("localhost", address[1]) if family == socket.AF_INET else address[:2]
            for target in (address, named):
                transport.sendto(b"back", target)
                got = await loop.run_in_executor(None, peer.recvfrom, 100)
                assert got == (b"back", transport.get_extra_info("sockname"))
        await server.close()

    run(loop, main())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 70_000), OverflowError),
        (("127.0.0.1", -1), OverflowError),
        (("127.0.0.1\0", 9), TypeError),
        (("127.0.0.1",), TypeError),
        ("no", TypeError),
    ],
)
def test_odd_addresses_are_refused(loop, address, expected):
    """An address that a socket refuses ends the transport with the socket's error."""

    async def main():
        loop.set_exception_handler(lambda *_: None)
        transport, server = await loop.create_datagram_endpoint(Datagrams, LOCAL)
        transport.sendto(b"x", address)
        assert type(await server.closed) is expected

    run(loop, main())


def test_a_refused_datagram_is_an_error_of_the_protocol(loop):
    """A port where nothing listens: the connected endpoint learns it, and goes on."""

    async def main():
        transport, client = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", unused_port()))
        transport.sendto(b"x")
        assert isinstance(await client.errors.get(), ConnectionRefusedError)
        assert not transport.is_closing()
        await client.close()

    run(loop, main())


AUDITED = """
import asyncio, sys, obsloop
seen = []
sys.addaudithook(lambda event, args: event == "socket.sendto" and seen.append(args[1]))

async def main():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    address = transport.get_extra_info("sockname")
    transport.sendto(b"x", address)
    assert seen == [address], seen
    transport.close()

obsloop.run(main())
"""


def test_audit_hooks_see_where_a_datagram_goes():
    """The event `socket.sendto` is raised once, with the address. A hook cannot be removed, so a process has it."""
    subprocess.run([sys.executable, "-c", AUDITED], check=True, timeout=60)
