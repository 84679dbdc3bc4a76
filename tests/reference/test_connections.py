"""create_connection over plain TCP: what it promises and every option of it. TLS is in test_tls."""

import asyncio
import errno
import functools
import socket
import sys

import pytest

from .support import Peer, echo_server, exchange, hang_up, listener, run, unused_port


def test_connects_and_exchanges_data(loop):
    """The synopsis: connected, factory called without arguments, connection_made(), the pair returned."""
    calls = []

    def factory(*args):
        calls.append(args)
        return Peer()

    async def main():
        async with echo_server() as port:
            transport, peer = await loop.create_connection(factory, "127.0.0.1", port)
            assert calls == [()]
            assert peer.events == ["made"]
            assert peer.transport is transport
            assert isinstance(transport, asyncio.Transport)
            assert transport.get_protocol() is peer
            assert await exchange(peer, b"hello") == b"hello"
            await hang_up(peer)
            assert peer.events == ["made", "lost"]
            assert peer.closed.result() is None

    run(loop, main())


def test_factory_may_return_a_protocol_made_before(loop):
    """`lambda: my_protocol` and functools.partial are factories as good as a class."""

    async def main():
        async with echo_server() as port:
            mine = Peer()
            _, protocol = await loop.create_connection(lambda: mine, "127.0.0.1", port)
            assert protocol is mine
            _, other = await loop.create_connection(functools.partial(Peer), "127.0.0.1", port)
            await hang_up(mine, other)

    run(loop, main())


def test_host_name_is_looked_up_and_family_chooses(loop):
    """A name is resolved; family, proto and flags go to getaddrinfo."""

    async def main():
        async with echo_server() as port:
            connect = functools.partial(loop.create_connection, Peer, "localhost", port)
            _, by_name = await connect(family=socket.AF_INET)
            _, with_proto = await connect(family=socket.AF_INET, proto=socket.IPPROTO_TCP, flags=0)
            assert by_name.transport.get_extra_info("socket").family == socket.AF_INET
            await hang_up(by_name, with_proto)
            numeric = socket.AI_NUMERICHOST
            with pytest.raises(socket.gaierror):
                await loop.create_connection(Peer, "localhost", port, flags=numeric)

    run(loop, main())


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python was built without IPv6")
def test_ipv6_by_its_host(loop):
    """A numeric host decides the family by itself."""

    async def main():
        async with echo_server("::1") as port:
            _, peer = await loop.create_connection(Peer, "::1", port)
            assert peer.transport.get_extra_info("socket").family == socket.AF_INET6
            assert await exchange(peer, b"six") == b"six"
            await hang_up(peer)

    run(loop, main())


def test_local_addr_binds_the_socket(loop):
    """local_addr is a (host, port) pair to connect from; its host is looked up too."""

    async def main():
        async with echo_server() as port:
            for host in ("127.0.0.2", "localhost"):
                _, peer = await loop.create_connection(
                    Peer, "127.0.0.1", port, local_addr=(host, 0), family=socket.AF_INET
                )
                expected = "127.0.0.1" if host == "localhost" else host
                assert peer.transport.get_extra_info("sockname")[0] == expected
                await hang_up(peer)

    run(loop, main())


def test_local_addr_that_is_taken(loop):
    """A local address in use is an OSError that names it."""

    async def main():
        with listener() as taken:
            async with echo_server() as port:
                with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
                    await loop.create_connection(Peer, "127.0.0.1", port, local_addr=taken.getsockname())
                assert caught.value.errno == errno.EADDRINUSE

    run(loop, main())


def test_sock_is_used_as_it_is(loop):
    """sock= takes a socket that is connected already, and makes it the transport's."""

    async def main():
        async with echo_server() as port:
            sock = socket.create_connection(("127.0.0.1", port))
            transport, peer = await loop.create_connection(Peer, sock=sock)
            assert transport.get_extra_info("socket").fileno() == sock.fileno()
            assert sock.gettimeout() == 0
            assert await exchange(peer, b"mine") == b"mine"
            await hang_up(peer)
            assert sock.fileno() == -1

    run(loop, main())


def test_sock_excludes_an_address_and_must_be_a_stream(loop):
    """host or port beside sock, neither of them, or a datagram socket: ValueError."""

    async def main():
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            for error, args, kwargs in (
                ("host/port and sock can not be specified", ("127.0.0.1", 1), {"sock": stream}),
                ("host and port was not specified and no sock", (), {}),
                ("A Stream Socket was expected", (), {"sock": datagram}),
            ):
                with pytest.raises(ValueError, match=error):
                    await loop.create_connection(Peer, *args, **kwargs)

    run(loop, main())


@pytest.mark.parametrize("option", ["server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_options_of_tls_without_ssl(loop, option):
    """What is only for TLS is a ValueError on a plain connection."""

    async def main():
        value = "obsloop.test" if option == "server_hostname" else 5
        with pytest.raises(ValueError, match=f"{option} is only meaningful with ssl"):
            await loop.create_connection(Peer, "127.0.0.1", 1, **{option: value})

    run(loop, main())


def test_refused(loop):
    """Nobody listens: ConnectionRefusedError, and no protocol is ever made."""

    async def main():
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(pytest.fail, "127.0.0.1", unused_port())

    run(loop, main())


def test_an_unknown_host(loop):
    """A name that cannot be resolved is a gaierror."""

    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_connection(pytest.fail, "name.invalid", 80)

    run(loop, main())


def test_a_factory_that_raises(loop):
    """The factory's exception is raised to the caller of create_connection."""

    def factory():
        raise LookupError("no protocol today")

    async def main():
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(LookupError, match="no protocol today"):
            # On sock=, so that the socket is ours to close on the Pythons that forget it.
            await loop.create_connection(factory, sock=ours)

    if sys.platform != "win32":
        run(loop, main())


def test_happy_eyeballs(loop):
    """happy_eyeballs_delay and interleave: the address that answers wins."""

    async def main():
        async with echo_server() as port:
            _, peer = await loop.create_connection(Peer, "localhost", port, happy_eyeballs_delay=0.05, interleave=1)
            assert await exchange(peer, b"glad") == b"glad"
            await hang_up(peer)

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors is new in 3.12")
def test_all_errors(loop):
    """all_errors=True raises every address's error in one group."""

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(Peer, "127.0.0.1", unused_port(), all_errors=True)
        assert [type(exc) for exc in caught.value.exceptions] == [ConnectionRefusedError]

    run(loop, main())


def test_cancelled_while_it_connects(loop):
    """A cancelled connect leaves neither a socket nor a protocol."""

    async def main():
        task = asyncio.ensure_future(loop.create_connection(pytest.fail, "localhost", unused_port()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())
