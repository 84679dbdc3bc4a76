"""create_server: hosts, options, errors. The object that it returns: test_server_object."""

import asyncio
import errno
import socket
import sys

import pytest

from .support import Accepting, Echo, Peer, end, exchange, hang_up, listener, run


def test_serves_many_clients(loop):
    """Each client gets a protocol of its own, and they do not disturb one another."""

    async def main():
        accepting = Accepting()
        server = await loop.create_server(accepting, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [(await loop.create_connection(Peer, *address))[1] for _ in range(20)]
        answers = await asyncio.gather(*(exchange(c, b"client %d" % n) for n, c in enumerate(clients)))
        assert answers == [b"client %d" % n for n in range(20)]
        await hang_up(*clients)
        await end(server, accepting)
        assert [peer.events for peer in accepting.peers] == [["made", "eof", "lost"]] * 20

    run(loop, main())


def test_host_none_is_all_interfaces(loop):
    """host=None, or empty, listens on every interface: IPv4 and, where there is one, IPv6."""

    async def main():
        for host in (None, ""):
            server = await loop.create_server(accepting := Accepting(), host, 0)
            by_family = {sock.family: sock.getsockname() for sock in server.sockets}
            assert by_family[socket.AF_INET][0] == "0.0.0.0"
            if len(by_family) == 2:
                assert by_family[socket.AF_INET6][0] == "::"
            _, client = await loop.create_connection(Peer, "127.0.0.1", by_family[socket.AF_INET][1])
            assert await exchange(client, b"hello") == b"hello"
            await hang_up(client)
            await end(server, accepting)

    run(loop, main())


def test_host_may_be_a_sequence(loop):
    """One server on several hosts; a host named twice is bound once."""

    async def main():
        for hosts in (["127.0.0.1", "127.0.0.2"], ("127.0.0.1", "127.0.0.2", "127.0.0.1")):
            server = await loop.create_server(accepting := Accepting(), hosts, 0)
            assert sorted(s.getsockname()[0] for s in server.sockets) == ["127.0.0.1", "127.0.0.2"]
            for sock in server.sockets:
                _, client = await loop.create_connection(Peer, *sock.getsockname())
                assert await exchange(client, b"hello") == b"hello"
                await hang_up(client)
            await end(server, accepting)

    run(loop, main())


def test_family_forces_one(loop):
    """family= limits the lookup to it."""

    async def main():
        server = await loop.create_server(Echo, None, 0, family=socket.AF_INET)
        assert [sock.family for sock in server.sockets] == [socket.AF_INET]
        await end(server)

    run(loop, main())


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python was built without IPv6")
def test_ipv6_only(loop):
    """An IPv6 socket of a server does not take IPv4 as well, so that both can be bound to one port."""

    async def main():
        server = await loop.create_server(Echo, "::1", 0)
        (sock,) = server.sockets
        assert sock.family == socket.AF_INET6
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        await end(server)

    run(loop, main())


def test_sock(loop):
    """sock= takes a bound socket; an address beside it, neither, or a datagram socket is a ValueError."""

    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as datagram:
            for args, kwargs in ((("127.0.0.1", 0), {"sock": datagram}), ((), {"sock": datagram}), ((), {})):
                with pytest.raises(ValueError, match="sock"):
                    await loop.create_server(Echo, *args, **kwargs)
        sock = listener()
        server = await loop.create_server(accepting := Accepting(), sock=sock)
        _, client = await loop.create_connection(Peer, *sock.getsockname())
        assert await exchange(client, b"mine") == b"mine"
        await hang_up(client)
        await end(server, accepting)
        assert sock.fileno() == -1

    run(loop, main())


def test_reuse_address(loop):
    """reuse_address is on unless it is switched off, so that a port can be bound again at once."""

    async def main():
        for reuse, expected in ((None, True), (True, True), (False, False)):
            server = await loop.create_server(Echo, "127.0.0.1", 0, reuse_address=reuse)
            option = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert bool(option) is expected
            await end(server)

    run(loop, main())


def test_reuse_port(loop):
    """Two servers share a port when both set reuse_port; otherwise the second one is refused."""

    async def main():
        one = await loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True)
        address = one.sockets[0].getsockname()
        two = await loop.create_server(Echo, *address, reuse_port=True)
        assert two.sockets[0].getsockname() == address
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            await loop.create_server(Echo, *address)
        assert caught.value.errno == errno.EADDRINUSE
        await end(one)
        await end(two)

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="keep_alive is new in 3.13")
def test_keep_alive(loop):
    """keep_alive=True sets SO_KEEPALIVE on the listening sockets."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, keep_alive=True)
        assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await end(server)

    run(loop, main())


def test_connect_accepted_socket(loop):
    """A connection that was accepted outside asyncio can be handed to the loop."""

    async def main():
        with listener() as outside:
            connecting = asyncio.ensure_future(loop.create_connection(Peer, *outside.getsockname()))
            conn, _ = await loop.sock_accept(outside)
            _, server_end = await loop.connect_accepted_socket(Echo, conn)
            _, client = await connecting
            assert await exchange(client, b"handed over") == b"handed over"
            await hang_up(client)
            await server_end.closed

    run(loop, main())


def test_a_failing_protocol_does_not_stop_the_server(loop):
    """An error in one protocol ends its connection and is reported; the next client is served."""
    contexts = []
    loop.set_exception_handler(lambda _loop, context: contexts.append(context))

    class Failing(Echo):
        def data_received(self, data):
            raise LookupError("no data today")

    protocols = iter([Failing, Echo])
    peers = []

    def factory():
        peers.append(next(protocols)())
        return peers[-1]

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        _, unlucky = await loop.create_connection(Peer, *address)
        unlucky.transport.write(b"x")
        await unlucky.closed
        _, client = await loop.create_connection(Peer, *address)
        assert await exchange(client, b"next") == b"next"
        await hang_up(client)
        for peer in peers:
            await peer.closed
        await end(server)

    run(loop, main())
    (context,) = contexts
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert isinstance(context["exception"], LookupError)
    assert context["protocol"] is peers[0]
    assert context["transport"] is peers[0].transport
    assert peers[0].closed.result() is context["exception"]
