"""What reaches the exception handler, and with which keys. The handler itself: test_exception_handler."""

import asyncio
import gc
import re

import pytest

from .support import Peer, fail, listener, run, run_batch, socket_pair


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_failing_callback(loop, contexts, method):
    """message, exception and the very handle; the other callbacks of the batch run."""
    seen = []
    schedule = getattr(loop, method)
    handle = schedule(-1, fail, 1) if "call_" in method and "soon" not in method else schedule(fail, 1)
    loop.call_soon(seen.append, "behind")
    run_batch(loop)
    assert seen == ["behind"]
    (context,) = contexts
    assert context["handle"] is handle
    assert isinstance(context["exception"], LookupError)
    # The arguments are left out since 3.13.1, but for debug mode.
    assert re.match(r"Exception in callback fail\(1?\) at .*support\.py:\d+$", context["message"])
    assert {"message", "exception", "handle"} == set(context)


def test_debug_mode_adds_where_the_handle_was_made(loop, contexts):
    """In debug mode source_traceback leads to the line that scheduled the callback."""
    loop.set_debug(True)
    loop.call_soon(fail)
    loop.call_later(-1, fail)
    run_batch(loop)
    for context in contexts:
        last = context["source_traceback"][-1]
        assert last.filename == __file__
        assert last.line.startswith("loop.call_")
    assert len(contexts) == 2


def test_the_traceback_ends_in_the_callback(loop, contexts):
    """The exception has the callback's frames."""
    loop.call_soon(fail)
    run_batch(loop)
    traceback = contexts[0]["exception"].__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code is fail.__code__


def test_reader_writer_and_done_callbacks(loop, contexts):
    """Callbacks of descriptors and of futures fail in the same way."""
    with socket_pair() as (a, b):
        b.send(b"x")
        loop.add_reader(a, fail)
        loop.add_writer(a, fail)
        future = loop.create_future()
        future.add_done_callback(fail)
        future.set_result(None)
        run_batch(loop)
        loop.remove_reader(a)
        loop.remove_writer(a)
    assert [type(context["exception"]) for context in contexts] == [LookupError] * 3
    assert all(isinstance(context["handle"], asyncio.Handle) for context in contexts)


def test_a_task_whose_exception_nobody_retrieves(loop, contexts):
    """A failed task that is dropped is reported when it is collected, with the future."""

    async def failing():
        fail()

    loop.create_task(failing(), name="a known name")
    run_batch(loop)
    run_batch(loop)
    gc.collect()
    (context,) = contexts
    assert context["message"] == "Task exception was never retrieved"
    assert isinstance(context["exception"], LookupError)
    assert context["future"].get_name() == "a known name"


def test_a_future_whose_exception_nobody_retrieves(loop, contexts):
    """The same of a plain future; a retrieved one is not reported."""
    unheard, heard = loop.create_future(), loop.create_future()
    unheard.set_exception(LookupError("unheard"))
    heard.set_exception(LookupError("heard"))
    heard.exception()
    del unheard, heard
    gc.collect()
    (context,) = contexts
    assert context["message"] == "Future exception was never retrieved"
    assert str(context["exception"]) == "unheard"


def test_a_pending_task_that_is_destroyed(loop, contexts):
    """A task that is collected before it is done is reported under 'task'."""

    async def wait():
        await asyncio.Future()

    loop.create_task(wait(), name="a known name")
    run_batch(loop)
    gc.collect()
    (context,) = contexts
    assert context["message"] == "Task was destroyed but it is pending!"
    assert context["task"].get_name() == "a known name"


def test_a_failing_protocol(loop, contexts):
    """An error in a protocol's callback names protocol and transport, and ends the connection."""

    class Failing(Peer):
        def data_received(self, data):
            fail()

    async def main():
        with listener() as server:
            connecting = asyncio.ensure_future(loop.create_connection(Failing, *server.getsockname()))
            conn, _ = await loop.sock_accept(server)
            transport, protocol = await connecting
            with conn:
                conn.send(b"x")
                exc = await protocol.closed
        (context,) = contexts
        assert context["protocol"] is protocol
        assert context["transport"] is transport
        assert context["exception"] is exc

    run(loop, main())


def test_a_base_exception_is_handled_like_others(loop, contexts):
    """Only KeyboardInterrupt and SystemExit leave the loop; GeneratorExit and one's own do not."""

    class Mine(BaseException):
        pass

    def raise_it(error):
        raise error

    loop.call_soon(raise_it, Mine)
    loop.call_soon(raise_it, GeneratorExit)
    loop.call_soon(raise_it, asyncio.CancelledError)
    run_batch(loop)
    assert [type(context["exception"]) for context in contexts] == [
        Mine,
        GeneratorExit,
        asyncio.CancelledError,
    ]
