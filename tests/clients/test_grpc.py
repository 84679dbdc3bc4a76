"""grpc.aio, server and client on one loop. Its poller, a thread of its own, wakes the loop through a socket pair."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio

from obsloop.testing import Recorder

pytestmark = pytest.mark.clients

OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.so_reuseport", 0)]
CALLS = 100
BLOCK = 0.5


async def double(request: bytes, context: aio.ServicerContext) -> bytes:
    """Twice what it was given."""
    return request * 2


async def count(request: bytes, context: aio.ServicerContext):
    """The numbers below the one that was asked for, one message each."""
    for i in range(int(request)):
        yield str(i).encode()


async def add_up(requests, context: aio.ServicerContext) -> bytes:
    """The length of all messages."""
    return str(sum([len(request) async for request in requests])).encode()


async def sleep(request: bytes, context: aio.ServicerContext) -> bytes:
    """Longer than anybody waits."""
    await asyncio.sleep(60)
    return b""


async def block(request: bytes, context: aio.ServicerContext) -> bytes:
    """Block the loop, on an observed one until the watchdog has taken a sample: on a busy machine it may be late."""
    time.sleep(BLOCK)
    obs = getattr(asyncio.get_running_loop(), "_obsloop", None)
    deadline = time.monotonic() + 30
    while obs is not None and not (obs.episode and obs.episode.sightings) and time.monotonic() < deadline:
        time.sleep(BLOCK)
    return b"done"


async def refuse(request: bytes, context: aio.ServicerContext) -> bytes:
    """An error that is an answer."""
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


@asynccontextmanager
async def channel_to_a_server():
    """A channel to a server on this loop. Messages are bytes, so that nothing has to be generated."""
    server = aio.server(options=OPTIONS)
    methods = {
        "double": grpc.unary_unary_rpc_method_handler(double),
        "count": grpc.unary_stream_rpc_method_handler(count),
        "add_up": grpc.stream_unary_rpc_method_handler(add_up),
        "sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "block": grpc.unary_unary_rpc_method_handler(block),
        "refuse": grpc.unary_unary_rpc_method_handler(refuse),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Service", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            yield channel
    finally:
        await server.stop(None)


def test_unary_calls(program):
    """A hundred calls one after another: for each the loop was woken through the poller's socket."""

    async def main():
        async with channel_to_a_server() as channel:
            call = channel.unary_unary("/tests.Service/double")
            return [await call(b"%d" % i) for i in range(CALLS)]

    assert program.run(main()) == [b"%d" % i * 2 for i in range(CALLS)]
    if figures := program.figures:
        assert figures.ran("reader") >= CALLS
        assert figures.ran("task_step") >= CALLS
        assert figures.jobs() == {}
        assert figures.total("asyncio.transport.opened") == 0  # gRPC's sockets are its own


def test_calls_at_once(program):
    """A thousand calls that are under way together: each gets its own answer."""

    async def main():
        async with channel_to_a_server() as channel:
            call = channel.unary_unary("/tests.Service/double")
            return await asyncio.gather(*(call(b"%d" % i) for i in range(1000)))

    assert program.run(main()) == [b"%d" % i * 2 for i in range(1000)]
    if figures := program.figures:
        assert figures.ran("task_step") >= 2 * 1000  # client and server


def test_streams(program):
    """A stream of five hundred messages from the server; one of as many from the client, a megabyte in all."""
    n, message = 500, bytes(2048)

    async def messages():
        for _ in range(n):
            yield message

    async def main():
        async with channel_to_a_server() as channel:
            counted = [int(i) async for i in channel.unary_stream("/tests.Service/count")(b"%d" % n)]
            length = await channel.stream_unary("/tests.Service/add_up")(messages())
            return counted, int(length)

    assert program.run(main()) == (list(range(n)), n * len(message))
    if figures := program.figures:
        assert figures.ran("reader") >= n / 10
        assert figures.ran("task_step") >= n


def test_a_deadline(program):
    """The server sleeps, the call is over after 0.3 s, and so is what the server did for it; the next call works."""

    async def main():
        async with channel_to_a_server() as channel:
            began = time.monotonic()
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/tests.Service/sleep")(b"", timeout=0.3)
            took = time.monotonic() - began
            with pytest.raises(aio.AioRpcError) as refused:
                await channel.unary_unary("/tests.Service/refuse")(b"")
            answer = await channel.unary_unary("/tests.Service/double")(b"still here ")
            return caught.value.code(), took, refused.value.code(), answer

    code, took, refused, answer = program.run(main())
    assert (code, refused) == (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.NOT_FOUND)
    assert 0.25 <= took < 60  # gRPC's own clock is that of another thread, and coarser
    assert answer == b"still here still here "
    if figures := program.figures:
        assert figures.state("idle") >= 0.2


def test_a_block_in_a_servicer_is_found(program):
    """The task is gRPC's own and its coroutine compiled, yet the line that held up the loop is told."""

    async def main():
        async with channel_to_a_server() as channel:
            return await channel.unary_unary("/tests.Service/block")(b"")

    with Recorder() as events:
        assert program.run(main()) == b"done"
    if figures := program.figures:
        # A busy machine makes others slow, too: the first look-ups of a channel, say.
        (event,) = (event for event in events.slow_callbacks if event.culprit_function.endswith(".block"))
        assert event.duration >= BLOCK
        assert event.kind == "task_step"
        assert event.name.startswith("grpc.")
        assert event.culprit_filename == __file__
        assert figures.slow("block") >= 1
