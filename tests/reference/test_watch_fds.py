"""add_reader, remove_reader, add_writer, remove_writer."""

import asyncio
import contextlib
import contextvars
import functools
import os
import selectors
import socket

import pytest

from .support import Peer, hang_up, listener, run, run_batch, run_forever, socket_pair

story = contextvars.ContextVar("story", default="untold")

both = pytest.mark.parametrize("kind", ["reader", "writer"])


@pytest.fixture
def watched():
    """A socket that can be read and written at once, and its other end."""
    with socket_pair() as (a, b):
        b.send(b"waiting")
        yield a, b


def add(loop, kind, *args):
    return getattr(loop, f"add_{kind}")(*args)


def remove(loop, kind, fd):
    return getattr(loop, f"remove_{kind}")(fd)


@both
def test_called_with_its_arguments_while_ready(loop, watched, kind):
    """The callback is called with its arguments in each iteration in which the descriptor is ready."""
    seen = []
    assert add(loop, kind, watched[0], seen.append, "ready") is None
    for count in range(1, 4):
        run_batch(loop)
        assert seen == ["ready"] * count
    assert remove(loop, kind, watched[0]) is True
    run_batch(loop)
    assert len(seen) == 3


def test_a_reader_waits_for_data(loop):
    """Nothing is called before there is something to read, and the sleeping loop wakes for it."""
    seen = []
    with socket_pair() as (a, b):

        def readable():
            seen.append(a.recv(100))
            loop.stop()

        loop.add_reader(a, readable)
        run_batch(loop)
        assert seen == []
        loop.call_later(0.01, b.send, b"data")
        run_forever(loop)
        assert seen == [b"data"]
        assert loop.remove_reader(a) is True


def fill(sock):
    """Write until the system takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)


def drain(sock):
    """Read until there is no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1 << 20)


def test_a_writer_waits_for_room(loop):
    """A writer is not called while the socket is full, and is called once the other end has read."""
    seen = []
    with socket_pair() as (a, b):
        fill(a)
        loop.add_writer(a, lambda: (seen.append("room"), loop.stop()))
        run_batch(loop)
        assert seen == []

        loop.call_later(0.01, drain, b)
        run_forever(loop)
        assert seen == ["room"]
        assert loop.remove_writer(a) is True


@both
def test_remove_says_whether_there_was_one(loop, watched, kind):
    """True for one that was there, False for one that was not, also the second time."""
    assert remove(loop, kind, watched[0]) is False
    add(loop, kind, watched[0], print)
    assert remove(loop, kind, watched[0]) is True
    assert remove(loop, kind, watched[0]) is False


@both
def test_adding_again_replaces(loop, watched, kind):
    """One callback a descriptor: a second one takes the first one's place."""
    seen = []
    add(loop, kind, watched[0], pytest.fail, "replaced")
    add(loop, kind, watched[0], seen.append, "second")
    run_batch(loop)
    assert seen == ["second"]
    assert remove(loop, kind, watched[0]) is True
    assert remove(loop, kind, watched[0]) is False


def test_reader_and_writer_of_one_descriptor(loop, watched):
    """Both can watch the same descriptor, the reader is called first, and each is removed by itself."""
    seen = []
    loop.add_writer(watched[0], seen.append, "write")
    loop.add_reader(watched[0], seen.append, "read")
    run_batch(loop)
    assert seen == ["read", "write"]
    assert loop.remove_reader(watched[0]) is True
    run_batch(loop)
    assert seen == ["read", "write", "write"]
    assert loop.remove_reader(watched[0]) is False
    assert loop.remove_writer(watched[0]) is True


@both
def test_descriptor_as_number_or_object(loop, watched, kind):
    """A number, a socket, or any object with fileno(); the forms may be mixed."""

    class HasFileno:
        def fileno(self):
            return watched[0].fileno()

    seen = []
    for fd in (watched[0], watched[0].fileno(), HasFileno()):
        add(loop, kind, fd, seen.append, type(fd))
        run_batch(loop)
        assert remove(loop, kind, watched[0].fileno()) is True
    assert seen == [socket.socket, int, HasFileno]


@both
def test_what_is_no_descriptor(loop, kind):
    """An object without fileno() is a ValueError."""
    with pytest.raises(ValueError, match="Invalid file object"):
        add(loop, kind, object(), print)
    with pytest.raises(ValueError, match="Invalid file object"):
        remove(loop, kind, object())


@both
def test_partial_keywords_and_context(loop, watched, kind):
    """Keywords come by functools.partial; the callback runs in its registrar's context."""
    seen = []

    def callback(*args, **kwargs):
        seen.append((args, kwargs, story.get()))

    def register():
        story.set("the registrar's")
        add(loop, kind, watched[0], functools.partial(callback, 1, flush=True), 2)

    contextvars.copy_context().run(register)
    run_batch(loop)
    assert seen == [((1, 2), {"flush": True}, "the registrar's")]
    remove(loop, kind, watched[0])


@both
def test_a_callback_removes_itself(loop, watched, kind):
    """Removing inside the callback is the usual thing, and final."""
    seen = []

    def once():
        seen.append("once")
        assert remove(loop, kind, watched[0]) is True

    add(loop, kind, watched[0], once)
    run_batch(loop)
    run_batch(loop)
    assert seen == ["once"]


def test_removed_in_the_batch_in_which_it_is_ready(loop, watched):
    """A ready callback that another one removes before its turn is not called."""
    loop.add_reader(watched[0], pytest.fail, "removed")
    loop.call_soon(loop.remove_reader, watched[0])
    # The callback scheduled before the poll is ahead of what the poll finds.
    run_batch(loop)
    run_batch(loop)


def test_a_failing_callback_stays_registered(loop, watched):
    """An error goes to the exception handler; the descriptor is watched still."""
    contexts = []
    loop.set_exception_handler(lambda _loop, context: contexts.append(context))
    loop.add_reader(watched[0], lambda: 1 / 0)
    run_batch(loop)
    run_batch(loop)
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError] * 2
    assert loop.remove_reader(watched[0]) is True


def test_pipes_and_end_of_file(loop):
    """Other descriptors than sockets work; the other end's closing makes a pipe readable."""
    read, write = os.pipe()
    try:
        loop.add_reader(read, loop.stop)
        run_batch(loop)
        os.close(write)
        run_forever(loop)
        assert os.read(read, 1) == b""
        assert loop.remove_reader(read) is True
    finally:
        os.close(read)


def test_a_transports_descriptor_is_not_to_be_watched(loop):
    """A descriptor that belongs to a transport is refused with a RuntimeError."""

    async def main():
        with listener() as server:
            connecting = asyncio.ensure_future(loop.create_connection(Peer, *server.getsockname()))
            conn, _ = await loop.sock_accept(server)
            transport, peer = await connecting
            with conn:
                sock = transport.get_extra_info("socket")
                for attempt in (
                    lambda: loop.add_reader(sock, print),
                    lambda: loop.add_writer(sock, print),
                    lambda: loop.remove_reader(sock),
                    lambda: loop.remove_writer(sock),
                ):
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        attempt()
                await hang_up(peer)

    run(loop, main())


def test_another_selector(make_loop):
    """The loop takes the selector that it is given, as the stock one does."""
    seen = []
    loop = make_loop(selectors.PollSelector())
    with socket_pair() as (a, b):
        b.send(b"x")
        loop.add_reader(a, lambda: seen.append(a.recv(1)))
        run_batch(loop)
        loop.remove_reader(a)
    assert seen == [b"x"]
