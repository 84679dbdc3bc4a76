"""Ten thousand connections, opened and closed, leave nothing behind: no object, no memory, no descriptor, no count.

In a process of its own, whose memory is that of this work alone. Linux: it reads /proc.
"""

import json
from collections import Counter

import pytest

from tests.support import output

# Of four connections the client ends one and the server two, and one is reset. Nothing is slow here: an event that is
# kept for /slow would be an object more.
PROGRAM = """
import asyncio, collections, functools, gc, json, os, socket, struct, sys, tempfile
os.environ["OBSLOOP_LINTS"] = "0"  # a look keeps a note for each task that is ready, until the next look
import obsloop

HALF, LAST, BATCH, MESSAGE = 5000, 1000, 100, b"x" * 100
PAGE = os.sysconf("SC_PAGE_SIZE")


class Server(asyncio.Protocol):
    open = 0

    def connection_made(self, transport):
        Server.open += 1
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        if data.endswith(b"server ends"):
            self.transport.close()

    def connection_lost(self, exc):
        Server.open -= 1


class Client(asyncio.Protocol):
    def __init__(self, how):
        self.how, self.received = how, 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        if self.how == "reset":
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.write(MESSAGE + b"server ends" if self.how == "server ends" else MESSAGE + b"client ends")

    def data_received(self, data):
        self.received += len(data)
        if self.received == len(MESSAGE) + 11 and self.how != "server ends":
            self.transport.abort() if self.how == "reset" else self.transport.close()

    def connection_lost(self, exc):
        self.over.set_result(self.received)


def seen():
    gc.collect()
    ours = collections.Counter(
        f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects() if of_ours(type(o))
    )
    with open("/proc/self/statm") as f:
        resident = int(f.read().split()[1]) * PAGE
    return {
        "ours": ours, "blocks": sys.getallocatedblocks(), "resident": resident,
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def of_ours(cls):
    return isinstance(cls.__module__, str) and cls.__module__.partition(".")[0] == "obsloop"


async def connections(n, connect):
    ways = ("client ends", "server ends", "reset", "server ends")
    for _ in range(n // BATCH):
        made = await asyncio.gather(*(connect(lambda how=ways[i % 4]: Client(how)) for i in range(BATCH)))
        received = await asyncio.gather(*(client.over for _, client in made))
        assert received == [len(MESSAGE) + 11] * BATCH, collections.Counter(received)
        del made, received


async def main(network):
    loop = asyncio.get_running_loop()
    if network == "tcp":
        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=BATCH)
        port = server.sockets[0].getsockname()[1]
        connect = functools.partial(loop.create_connection, host="127.0.0.1", port=port)
    else:
        folder = tempfile.TemporaryDirectory(prefix="obsloop-")
        path = folder.name + "/socket"
        server = await loop.create_unix_server(Server, path, backlog=BATCH)
        connect = functools.partial(loop.create_unix_connection, path=path)
    figures = []
    async with server:
        for _ in range(2):
            await connections(HALF, connect)
            while Server.open:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # and what called them has gone
            figures.append(seen())
        # What asyncio leaves to the collector, among it nothing of ours.
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        await connections(LAST, connect)
        await asyncio.sleep(0.05)
        gc.collect()
        figures.append(collections.Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.garbage))
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    if network == "unix":
        folder.cleanup()
    return figures

loop = {loop}()
loop.slow_callback_duration = 3600
figures = loop.run_until_complete(main("{network}"))
loop.close()
if isinstance(loop, obsloop.Loop):
    snapshot = obsloop.snapshots()["main"]
    names = ("transport.opened", "transport.active", "transport.closed", "transport.io", "server.accepted",
        "server.connections.active")
    # What is not zero, by the labels.
    figures.append({
        name: {" ".join(labels): n for labels, n in snapshot[f"asyncio.{name}"].items() if n} for name in names
    })
print(json.dumps(figures))
"""


HALF, LAST = 5000, 1000
MIB = 1 << 20


def figures_of(network: str, loop: str = "obsloop.Loop"):
    """What was seen after each half; what was garbage after some more, by class; and what obsloop says of it all."""
    return json.loads(output(PROGRAM.replace("{network}", network).replace("{loop}", loop)))


@pytest.mark.parametrize("network", ["tcp", pytest.param("unix", marks=pytest.mark.once)])
def test_ten_thousand_connections_leave_nothing_behind(network):
    """What the second five thousand added to the first: nothing that there would be for each, or for each tenth."""
    half, whole, garbage, counted = figures_of(network)
    assert whole["descriptors"] == half["descriptors"]
    # Ours come and go: a handle, what the watchdog noted of the thread.
    more = {name: new for name, n in whole["ours"].items() if (new := n - half["ours"].get(name, 0))}
    assert sum(more.values()) < 20, more
    # All of Python's: caches that fill up. Ten thousand sides of connections would be some hundred thousand.
    assert whole["blocks"] - half["blocks"] < HALF / 10
    # And what Python does not count; the allocator's arenas come and go by 256 KiB and by one MiB.
    assert whole["resident"] - half["resident"] < 2 * MIB
    assert [name for name in garbage if name.startswith("obsloop")] == []
    # Each connection has two sides on this loop, and the same bytes went over it twice, there and back.
    n = 2 * HALF + LAST
    assert counted["transport.opened"] == {f"{network} client": n, f"{network} server": n}
    assert (counted["transport.active"], counted["server.connections.active"]) == ({}, {})
    assert sum(counted["server.accepted"].values()) == n
    carried = n * 2 * (100 + 11)
    assert counted["transport.io"] == {f"read {network}": carried, f"write {network}": carried}
    # Who ends a connection closes by himself, and the other side reads its end; a reset is one over TCP only.
    quarter = n // 4
    reset = "reset" if network == "tcp" else "eof"
    ends = Counter(local=3 * quarter, eof=3 * quarter, aborted=quarter)
    ends[reset] += quarter
    assert counted["transport.closed"] == {f"{network} {reason}": times for reason, times in ends.items()}


@pytest.mark.once
def test_the_collector_has_nothing_to_do():
    """asyncio's transports keep methods of their own, and are garbage that refers to itself; ours let go of them."""
    garbage = figures_of("tcp")[2]
    # Of a few the end may fall after the look.
    assert sum(garbage.values()) <= LAST / 100, garbage
