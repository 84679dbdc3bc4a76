"""Servers: what each address accepts, what it cannot accept, and how many connections it has open."""

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest

import obsloop
from tests.support import LIMIT, forget_everything

ACCEPTED, ACTIVE, ERRORS = (
    "asyncio.server.accepted",
    "asyncio.server.connections.active",
    "asyncio.server.accept.errors",
)


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


def figures(loop, signal):
    """Its values, by the address or whatever labels it has."""
    return {labels[0] if len(labels) == 1 else labels: n for labels, n in loop.snapshot()[signal].items()}


async def until(condition):
    """Wait until `condition()` holds."""
    while not condition():
        await asyncio.sleep(0.001)


async def drain(reader, writer):
    """A server's part: wait for the client to end, then end."""
    await reader.read()
    writer.close()


def named(sock):
    """An IPv4 address as the figures have it."""
    return "{}:{}".format(*sock.getsockname())


async def closed(server):
    server.close()
    await server.wait_closed()


def test_accepted_and_active(loop, tmp_path):
    """Three connections to one address, two to a Unix socket: counted, open, and then open no more."""

    async def main():
        one = await asyncio.start_server(drain, "127.0.0.1", 0)
        two = await asyncio.start_unix_server(drain, tmp_path / "b.sock")
        name = named(one.sockets[0])
        writers = [(await asyncio.open_connection(*one.sockets[0].getsockname()))[1] for _ in range(3)]
        writers += [(await asyncio.open_unix_connection(tmp_path / "b.sock"))[1] for _ in range(2)]
        expected = {name: 3, str(tmp_path / "b.sock"): 2}
        await until(lambda: figures(loop, ACTIVE) == expected)
        assert figures(loop, ACCEPTED) == expected
        for writer in writers:
            writer.close()
        await until(lambda: not any(figures(loop, ACTIVE).values()))
        assert figures(loop, ACTIVE) == dict.fromkeys(expected, 0)
        assert figures(loop, ACCEPTED) == expected
        await closed(one)
        await closed(two)

    run(loop, main())


def test_one_server_with_two_addresses(loop):
    """Each socket that it listens on is an address of its own; IPv6 in brackets, and names without a file by @."""

    async def main():
        try:
            server = await asyncio.start_server(drain, ["127.0.0.1", "::1"], 0)
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0obsloop-{os.getpid()}")
        unix = await asyncio.start_unix_server(drain, sock=abstract)
        for sock in server.sockets:
            _, writer = await asyncio.open_connection(*sock.getsockname()[:2])
            writer.close()
        _, writer = await asyncio.open_unix_connection(f"\0obsloop-{os.getpid()}")
        writer.close()
        four, six = sorted(server.sockets, key=lambda sock: sock.family)
        expected = {named(four), f"[::1]:{six.getsockname()[1]}", f"@obsloop-{os.getpid()}"}
        await until(lambda: figures(loop, ACCEPTED).keys() == expected and not any(figures(loop, ACTIVE).values()))
        await closed(server)
        await closed(unix)

    if sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    run(loop, main())


def test_a_descriptor_under_a_wrong_family(loop):
    """As uvicorn's --fd has it: a TCP socket from elsewhere, said to be a Unix one. It is what the kernel says."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as given:
            listening = socket.fromfd(given.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            server = await asyncio.start_server(drain, sock=listening)
            _, writer = await asyncio.open_connection(*given.getsockname())
            await until(lambda: any(figures(loop, ACTIVE).values()))
            opened = {key: n for key, n in loop.snapshot()["asyncio.transport.opened"].items() if n}
            assert opened == {("tcp", "client"): 1, ("tcp", "server"): 1}
            assert figures(loop, ACCEPTED) == {named(given): 1}
            writer.close()
            await until(lambda: not any(figures(loop, ACTIVE).values()))
            await closed(server)

    if sys.platform != "linux":
        pytest.skip("elsewhere the kernel cannot be asked")
    run(loop, main())


def test_a_thousand_connections(loop):
    """Opened and closed, fifty at once: all are counted, none is left, and nothing of theirs is kept."""

    async def one(address):
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(drain, "127.0.0.1", 0)
        address, name = server.sockets[0].getsockname(), named(server.sockets[0])
        for _ in range(20):
            await asyncio.gather(*(one(address) for _ in range(50)))
        await until(lambda: figures(loop, ACTIVE)[name] == 0 and figures(loop, ACCEPTED)[name] == 1000)
        await closed(server)

    run(loop, main())
    assert loop._obsloop.setup is None
    assert sum(loop.snapshot()["asyncio.transport.active"].values()) == 0


def test_more_addresses_than_there_is_room_for(loop):
    """A test suite opens servers on port after port: the first eight keep their name, the rest is one, and counted."""

    async def main():
        names, servers = [], []
        for _ in range(12):
            server = await asyncio.start_server(drain, "127.0.0.1", 0)
            servers.append(server)  # all open at a time, or the next might get the same port
            names.append(named(server.sockets[0]))
            for _ in range(2):
                _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.close()
            await until(lambda: sum(figures(loop, ACCEPTED).values()) == 2 * len(names))
            assert sum(figures(loop, ACTIVE).values()) >= 0
            await until(lambda: not any(figures(loop, ACTIVE).values()))
        for server in servers:
            await closed(server)
        return names

    before = obsloop.process_snapshot().value("obsloop.dropped", "server.address")
    names = run(loop, main())
    assert figures(loop, ACCEPTED) == {**dict.fromkeys(names[:8], 2), "_OTHER": 8}
    assert figures(loop, ACTIVE) == dict.fromkeys([*names[:8], "_OTHER"], 0)
    assert obsloop.process_snapshot().value("obsloop.dropped", "server.address") == before + 8
    assert len(loop._obsloop.servers.active) == 9
    del names


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_connections_that_come_to_nothing(loop, server_tls):
    """A factory that raises, and a client that speaks no TLS: accepted, and not open."""

    def factory():
        raise LookupError("no protocol")

    async def main():
        broken = await loop.create_server(factory, "127.0.0.1", 0)
        tls = await asyncio.start_server(drain, "127.0.0.1", 0, ssl=server_tls)
        for server in (broken, tls):
            sock = socket.create_connection(server.sockets[0].getsockname())
            sock.sendall(b"no TLS at all\r\n" * 10)
            await until(lambda: figures(loop, ACCEPTED).get(named(server.sockets[0])) == 1)  # noqa: B023
            sock.close()
        await until(lambda: not sum(loop.snapshot()["asyncio.transport.active"].values()))
        assert list(figures(loop, ACTIVE).values()) == [0, 0]
        await closed(tls)
        await closed(broken)

    run(loop, main())
    gc.collect()  # asyncio leaves the socket of the one that got no protocol to the collector


def test_too_many_open_files():
    """EMFILE for real: the server lives on as with asyncio, the figure shows it, and later it accepts again."""
    source = f"""
        import asyncio, json, os, resource, sys
        import obsloop

        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: messages.add(context["message"]))
            server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=3)
            room = [os.dup(0), os.dup(0)]  # for two connections
            limit = max(room) + 1
            for fd in room:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            print(json.dumps(server.sockets[0].getsockname()), flush=True)
            done = asyncio.Event()
            loop.add_reader(0, lambda: (os.read(0, 100), done.set()))
            while True:
                await done.wait()
                done.clear()
                data = loop.snapshot().data
                names = {(ACCEPTED, ERRORS, ACTIVE)!r}
                figures = {{name: [[*labels, n] for labels, n in data[name].items()] for name in names}}
                print(json.dumps([figures, sorted(messages)]), flush=True)

        messages = set()
        # Without the watchdog, which opens files of its own while there is room.
        obsloop.run(main(), settings=obsloop.Settings(name="main", watchdog=False))
    """
    env = {k: v for k, v in os.environ.items() if k == "OBSLOOP_PURE" or not k.startswith(("PYTHON", "OBSLOOP_"))}
    head = f"import sys; sys.path[:] = {sys.path!r}\n"
    command = [sys.executable, "-W", "error", "-c", head + textwrap.dedent(source)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = tuple(json.loads(server.stdout.readline()))
            name = "{}:{}".format(*address)

            def ask():
                server.stdin.write("?\n")
                server.stdin.flush()
                return json.loads(server.stdout.readline())

            clients = [socket.create_connection(address, LIMIT) for _ in range(3)]
            for client in clients[:2]:
                client.sendall(b"one")
                assert client.recv(100) == b"one"
            figures, messages = ask()
            while not figures[ERRORS]:
                figures, messages = ask()
            ((where, error, n),) = figures[ERRORS]
            assert (where, error, n >= 1) == (name, "EMFILE", True)
            assert messages == ["socket.accept() out of system resource"]
            assert figures[ACCEPTED] == figures[ACTIVE] == [[name, 2]]
            clients[0].close()  # room for the third, when asyncio tries again
            clients[2].sendall(b"three")
            assert clients[2].recv(100) == b"three"
            figures, _ = ask()
            assert figures[ACCEPTED] == [[name, 3]]
            assert figures[ACTIVE] == [[name, 2]]
            for client in clients:
                client.close()
        finally:
            server.kill()


def test_an_error_that_asyncio_does_not_know(loop):
    """A listening socket that is shut down is an EINVAL at each turn; asyncio reports it as it always does."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def main():
        server = await asyncio.start_server(drain, "127.0.0.1", 0)
        name = named(server.sockets[0])
        with socket.socket(fileno=os.dup(server.sockets[0].fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        await until(lambda: contexts)
        await closed(server)
        return name

    if sys.platform != "linux":
        pytest.skip("how Linux does it")
    name = run(loop, main())
    assert figures(loop, ERRORS) == {(name, "EINVAL"): len(contexts)}
    assert isinstance(contexts[0]["exception"], OSError)
    assert loop._obsloop.servers.accepting is None


def test_a_server_from_before():
    """A loop that is observed while it serves: the server goes on, and its connections are counted from then on."""

    async def main():
        server = await asyncio.start_server(drain, "127.0.0.1", 0)
        address, name = server.sockets[0].getsockname(), named(server.sockets[0])
        _, before = await asyncio.open_connection(*address)
        await asyncio.sleep(0.05)
        loop = obsloop.instrument(settings=obsloop.Settings(name="turned"))
        _, after = await asyncio.open_connection(*address)
        await until(lambda: figures(loop, ACTIVE) == {name: 1})
        for writer in (before, after):
            writer.close()
            await writer.wait_closed()
        await until(lambda: figures(loop, ACTIVE) == {name: 0})
        assert figures(loop, ACCEPTED) == {name: 1}
        await closed(server)

    forget_everything()
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_with_connections_open():
    """They count no more; and what the collector finds of them later takes nothing off the next loop's."""
    forget_everything()
    clients = []

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        await until(lambda: sum(figures(loop, ACTIVE).values()) == 1)
        return figures(loop, ACTIVE).keys()

    settings = obsloop.Settings(name="main")
    first, second = obsloop.Loop(settings=settings), obsloop.Loop(settings=settings)
    (name,) = run(first, main())
    first.close()
    assert figures(second, ACTIVE) == {name: 0}
    del first
    gc.collect()
    assert figures(second, ACTIVE) == {name: 0}
    second.close()
    for client in clients:
        client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_none_of_them(loop):
    """The connections are the parent's: in the child they are not there, and closing its copies changes nothing."""

    async def main():
        server = await asyncio.start_server(drain, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await until(lambda: sum(figures(loop, ACTIVE).values()) == 1)
        child = os.fork()
        if not child:
            os._exit(3 if figures(loop, ACTIVE) == {} else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        writer.close()
        await until(lambda: sum(figures(loop, ACTIVE).values()) == 0)
        await closed(server)

    run(loop, main())
