"""What a transport calls is named after the program's protocol and its peer, over real sockets, pipes and TLS."""

import asyncio
import os
import socket
import ssl
import sys

import pytest
import trustme

from obsloop.introspect.callbacks import site_of_callback, site_of_handle
from obsloop.introspect.functions import Site

HERE = __name__
LIMIT = 30
LARGE = 1 << 22  # more than the sockets take at once


def line_of(function) -> int:
    return function.__code__.co_firstlineno


def watching(fd, side=0):
    """The handle that waits for reads (0) or writes (1) of ``fd``."""
    return asyncio.get_running_loop()._selector.get_key(fd).data[side]


class Seen:
    """What every protocol here does when it is called: it asks for the site of the handle that is running."""

    def __init__(self) -> None:
        self.site = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()
        self.lost_handle = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.made = site_of_callback(self.connection_made, (transport,))

    def look(self, side=0) -> None:
        sock = self.transport.get_extra_info("socket") or self.transport.get_extra_info("pipe")
        if not self.site.done():
            self.site.set_result(site_of_handle(watching(sock.fileno(), side)))

    def connection_lost(self, exc) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class Stream(Seen, asyncio.Protocol):
    def data_received(self, data) -> None:
        self.look()


class Client(Stream):
    """It inherits everything."""


class Buffered(Seen, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        return bytearray(100)

    def buffer_updated(self, nbytes) -> None:
        self.look()


class Writer(Stream):
    def resume_writing(self) -> None:
        self.look(1)


class Datagrams(Seen, asyncio.DatagramProtocol):
    def datagram_received(self, data, addr) -> None:
        self.look()


class Process(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.site = asyncio.get_running_loop().create_future()
        self.exited = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        pipe = transport.get_pipe_transport(1)
        self.site.set_result(site_of_handle(watching(pipe.get_extra_info("pipe").fileno())))
        self.exit_site = site_of_callback(transport._process_exited, (0,))

    def pipe_data_received(self, fd, data) -> None: ...

    def process_exited(self) -> None:
        self.exited.set_result(None)


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


async def greet(reader, writer) -> None:
    """A handler as programs pass it to start_server."""
    writer.write(b"hello")
    await reader.read()
    writer.close()


PROTOCOLS = [
    (Client, "Client.data_received", Stream.data_received),
    (Buffered, "Buffered.buffer_updated", Buffered.buffer_updated),
]


@pytest.fixture(scope="module")
def tls():
    """What a server and its client need to trust each other."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("protocol", "name", "function"), PROTOCOLS)
def test_a_read_is_named_after_the_protocol_and_its_peer(loop, tls, secure, protocol, name, function):
    """Never after asyncio's transport, nor its protocol of TLS."""

    async def main() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls[0] if secure else None)
        port = server.sockets[0].getsockname()[1]
        accepting = site_of_handle(watching(server.sockets[0].fileno()))
        assert accepting == Site(f"{HERE}.greet", __file__, line_of(greet), None, f"accepting on 127.0.0.1:{port}")
        transport, client = await loop.create_connection(protocol, "127.0.0.1", port, ssl=tls[1] if secure else None)
        peer = f"from 127.0.0.1:{port}"
        assert await client.site == Site(f"{HERE}.{name}", __file__, line_of(function), None, peer)
        assert client.made[::4] == (f"{HERE}.{protocol.__name__}.connection_made", peer)
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_a_lost_connection_is_named_while_asyncio_still_knows_it(loop):
    """When it is over the transport has let go of the protocol, but not of the peer's name."""

    async def main() -> None:
        server = await loop.create_server(lambda *_: Client(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        handle = watching(server.sockets[0].fileno())
        assert site_of_handle(handle).name.endswith("main.<locals>.<lambda>")
        transport, client = await loop.create_connection(Client, "127.0.0.1", port)
        callback = transport._call_connection_lost
        lost = f"{HERE}.Client.connection_lost", __file__, line_of(Seen.connection_lost), None
        assert site_of_callback(callback, (None,)) == (*lost, f"from 127.0.0.1:{port}")
        transport.close()
        await client.lost
        assert site_of_callback(callback, (None,)).detail == f"from 127.0.0.1:{port}"
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_a_write_is_named_after_what_it_may_resume(loop):
    """asyncio calls nothing else of the program's there."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        transport, writer = await loop.create_connection(Writer, sock=ours)
        transport.write(bytes(LARGE))
        read = 0
        while read < LARGE:
            read += len(await loop.sock_recv(theirs, LARGE))
        assert await writer.site == Site(f"{HERE}.Writer.resume_writing", __file__, line_of(Writer.resume_writing))
        transport.close()
        await writer.lost
        theirs.close()

    run(loop, main())


def test_a_datagram_has_the_name_of_its_protocol(loop):
    """One that is connected has a peer, another has as many as there are senders."""

    async def main() -> None:
        server, served = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        address = server.get_extra_info("sockname")
        client, asked = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
        client.sendto(b"?")
        name = f"{HERE}.Datagrams.datagram_received", __file__, line_of(Datagrams.datagram_received), None
        assert await served.site == (*name, "")
        server.sendto(b"!", client.get_extra_info("sockname"))
        assert await asked.site == (*name, f"from 127.0.0.1:{address[1]}")
        for transport, protocol in ((server, served), (client, asked)):
            transport.close()
            await protocol.lost

    run(loop, main())


@pytest.mark.parametrize("path", ["named", "abstract"])
def test_peers_on_unix_sockets_have_paths_or_nothing(loop, tmp_path, path):
    """The server has a name, a client mostly none."""
    if path == "abstract" and sys.platform != "linux":
        pytest.skip("Linux has names that are no paths")
    address, shown = (str(tmp_path / "s"),) * 2 if path == "named" else (f"\0obsloop{os.getpid()}", None)
    shown = shown or f"@obsloop{os.getpid()}"

    async def main() -> None:
        accepted = []

        def factory():
            accepted.append(Client())
            return accepted[0]

        server = await loop.create_unix_server(factory, address)
        assert site_of_handle(watching(server.sockets[0].fileno())).detail == f"accepting on {shown}"
        transport, client = await loop.create_unix_connection(Client, address)
        assert client.made.detail == f"from {shown}"
        transport.write(b"hello")
        while not accepted:
            await asyncio.sleep(0)
        assert (await accepted[0].site).detail == ""
        transport.close()
        await client.lost
        await accepted[0].lost
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_an_ipv6_address_is_in_brackets(loop):
    """As people write it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")

    async def main() -> None:
        server = await asyncio.start_server(greet, "::1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, client = await loop.create_connection(Client, "::1", port)
        assert (await client.site).detail == f"from [::1]:{port}"
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_pipes_have_the_names_of_their_protocols(loop):
    """Both ends of one."""

    async def main() -> None:
        read, write = os.pipe()
        _, reader = await loop.connect_read_pipe(Client, os.fdopen(read, "rb", 0))
        writing, writer = await loop.connect_write_pipe(Writer, os.fdopen(write, "wb", 0))
        writing.write(b"hello")
        assert await reader.site == Site(f"{HERE}.Client.data_received", __file__, line_of(Stream.data_received))
        assert site_of_callback(writing._write_ready).name == f"{HERE}.Writer.resume_writing"
        assert site_of_callback(writing._read_ready).name == f"{HERE}.Writer.connection_lost"
        writing.close()
        await writer.lost
        await reader.lost

    run(loop, main())


def test_a_child_process_has_the_name_of_its_protocol(loop):
    """asyncio puts a protocol of its own on each pipe."""

    async def main() -> None:
        transport, process = await loop.subprocess_exec(
            Process, sys.executable, "-c", "print(1)", stdin=None, stderr=None
        )
        received = Process.pipe_data_received
        assert await process.site == Site(f"{HERE}.Process.pipe_data_received", __file__, line_of(received))
        assert process.exit_site.name == f"{HERE}.Process.process_exited"
        await process.exited
        transport.close()

    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        asyncio.set_child_watcher(watcher)
        watcher.attach_loop(loop)
    try:
        run(loop, main())
    finally:
        if sys.version_info < (3, 12):
            asyncio.set_child_watcher(None)  # asyncio makes its own again


def test_reading_on_after_tls_paused_is_named_after_the_protocol(loop, tls):
    """It is a closure of asyncio's own protocol that is on the loop then."""

    async def main() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls[0])
        port = server.sockets[0].getsockname()[1]
        transport, client = await loop.create_connection(Client, "127.0.0.1", port, ssl=tls[1])
        transport.pause_reading()
        transport.resume_reading()
        site = site_of_handle(loop._ready[-1])
        assert (site.name, site.detail) == (f"{HERE}.Client.data_received", f"from 127.0.0.1:{port}")
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_the_streams_of_asyncio_have_their_own_name(loop):
    """What a program reads from a stream is not known there; its task is."""

    async def main() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        site = site_of_handle(watching(writer.get_extra_info("socket").fileno()))
        assert site.name == "asyncio.streams.StreamReaderProtocol.data_received"
        assert await reader.read(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_a_transport_of_the_programs_own_is_named_as_itself(loop):
    """Only of asyncio's methods is it known what they call."""

    class Own(asyncio.Transport):
        def _read_ready(self) -> None: ...

    site = site_of_handle(loop.call_soon(Own()._read_ready))
    assert site.name.endswith("<locals>.Own._read_ready")
