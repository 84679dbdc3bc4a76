"""TLS: ssl=, server_hostname, its default and its absence, timeouts, start_tls."""

import asyncio
import socket
import ssl

import pytest

from .support import Echo, Peer, echo_server, exchange, hang_up, listener, run


def test_tls_connection(loop, server_tls, client_tls):
    """ssl=a context gives an encrypted transport; the host is what the certificate is checked against."""

    async def main():
        async with echo_server(ssl=server_tls) as port:
            transport, peer = await loop.create_connection(
                Peer, "localhost", port, ssl=client_tls, family=socket.AF_INET
            )
            assert peer.events == ["made"]
            assert transport.get_protocol() is peer
            assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
            assert transport.get_extra_info("sslcontext") is client_tls
            assert transport.get_extra_info("cipher")[1].startswith("TLS")
            assert transport.get_extra_info("peercert")
            blob = b"secret" * 200_000
            assert await exchange(peer, blob) == blob
            await hang_up(peer)
            assert peer.closed.result() is None

    run(loop, main())


def test_server_hostname_overrides_the_host(loop, server_tls, client_tls):
    """The certificate is matched with server_hostname where one is given."""

    async def main():
        async with echo_server(ssl=server_tls) as port:
            _, peer = await loop.create_connection(
                Peer, "127.0.0.1", port, ssl=client_tls, server_hostname="obsloop.test"
            )
            assert await exchange(peer, b"named") == b"named"
            await hang_up(peer)

    run(loop, main())


def test_a_certificate_for_another_name_is_refused(loop, server_tls, client_tls):
    """A name that the certificate does not have fails the handshake; there is no connection_made()."""
    made = []

    def factory():
        made.append(Peer())
        return made[-1]

    async def main():
        async with echo_server(ssl=server_tls) as port:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"another\.test"):
                await loop.create_connection(factory, "127.0.0.1", port, ssl=client_tls, server_hostname="another.test")
            assert [peer.events for peer in made] == [[]]

    run(loop, main())


def test_an_unknown_authority_is_refused(loop, server_tls):
    """ssl=True uses default settings, which do not trust our authority."""

    async def main():
        async with echo_server(ssl=server_tls) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(Peer, "localhost", port, ssl=True, family=socket.AF_INET)

    run(loop, main())


def test_an_empty_server_hostname_disables_matching(loop, server_tls, authority):
    """server_hostname='' turns name matching off; the context must agree to that."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.check_hostname = False

    async def main():
        async with echo_server(ssl=server_tls) as port:
            _, peer = await loop.create_connection(Peer, "127.0.0.1", port, ssl=context, server_hostname="")
            assert await exchange(peer, b"nameless") == b"nameless"
            await hang_up(peer)

    run(loop, main())


def test_without_a_host_server_hostname_is_needed(loop, server_tls, client_tls):
    """On sock= there is no host to default to: ValueError, and with a name it works."""

    async def main():
        async with echo_server(ssl=server_tls) as port:
            sock = socket.create_connection(("127.0.0.1", port))
            with pytest.raises(ValueError, match="You must set server_hostname when using ssl without a host"):
                await loop.create_connection(Peer, sock=sock, ssl=client_tls)
            _, peer = await loop.create_connection(Peer, sock=sock, ssl=client_tls, server_hostname="localhost")
            assert await exchange(peer, b"mine") == b"mine"
            await hang_up(peer)

    run(loop, main())


def test_ssl_handshake_timeout(loop, client_tls):
    """A peer that accepts but never shakes hands is given up after ssl_handshake_timeout."""

    async def main():
        with listener() as silent:
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    Peer,
                    *silent.getsockname(),
                    ssl=client_tls,
                    server_hostname="localhost",
                    ssl_handshake_timeout=0.05,
                )
            )
            conn, _ = await loop.sock_accept(silent)
            with conn, pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer than"):
                await connecting

    run(loop, main())


def test_a_peer_that_speaks_no_tls(loop, client_tls):
    """An answer that is not TLS is an SSLError."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        with pytest.raises(ssl.SSLError):
            await loop.create_connection(
                Peer, *server.sockets[0].getsockname(), ssl=client_tls, server_hostname="localhost"
            )
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_a_server_refuses_ssl_true(loop):
    """A server needs a context with a certificate: True will not do."""

    async def main():
        with pytest.raises(TypeError, match="SSLContext"):
            await loop.create_server(Echo, "127.0.0.1", 0, ssl=True)

    run(loop, main())


def test_sock_methods_refuse_a_tls_socket(loop, client_tls):
    """The low-level methods take plain sockets only."""

    async def main():
        with socket.socket() as plain:
            wrapped = client_tls.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
            with wrapped:
                wrapped.setblocking(False)
                for attempt in (
                    loop.sock_recv(wrapped, 1),
                    loop.sock_sendall(wrapped, b"x"),
                    loop.sock_connect(wrapped, ("127.0.0.1", 1)),
                    loop.sock_accept(wrapped),
                ):
                    with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                        await attempt

    run(loop, main())


def test_start_tls_on_both_ends(loop, server_tls, client_tls):
    """A plain connection becomes an encrypted one on both sides, and goes on with the same protocols."""

    class Upgrading(Echo):
        def data_received(self, data):
            if data == b"STARTTLS":
                self.transport.write(b"ready")
                self.upgrade = loop.create_task(self.shake_hands())
            else:
                super().data_received(data)

        async def shake_hands(self):
            self.transport = await loop.start_tls(self.transport, self, server_tls, server_side=True)

    async def main():
        made = []
        server = await loop.create_server(lambda: made.append(Upgrading()) or made[-1], "127.0.0.1", 0)
        transport, peer = await loop.create_connection(Peer, *server.sockets[0].getsockname())
        transport.write(b"STARTTLS")
        assert await peer.received(5) == b"ready"
        peer.transport = await loop.start_tls(transport, peer, client_tls, server_hostname="localhost")
        await made[0].upgrade
        assert peer.transport.get_extra_info("cipher")
        assert await exchange(peer, b"now secret") == b"now secret"
        await hang_up(peer)
        await made[0].closed
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_tls_over_unix_sockets(loop, server_tls, client_tls, tmp_path):
    """create_unix_server and create_unix_connection take ssl=, and a connection needs a name with it."""
    path = str(tmp_path / "socket")

    async def main():
        made = []
        server = await loop.create_unix_server(lambda: made.append(Echo()) or made[-1], path, ssl=server_tls)
        with pytest.raises(ValueError, match="you have to pass server_hostname when using ssl"):
            await loop.create_unix_connection(Peer, path, ssl=client_tls)
        _, peer = await loop.create_unix_connection(Peer, path, ssl=client_tls, server_hostname="localhost")
        assert await exchange(peer, b"here") == b"here"
        await hang_up(peer)
        await made[0].closed
        server.close()
        await server.wait_closed()

    run(loop, main())
