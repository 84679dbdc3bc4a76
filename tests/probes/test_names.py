"""Name look-ups: the resolver's time and error, kept apart from the executor's queue."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import obsloop
from obsloop.testing import Recorder
from tests.support import LIMIT, forget_everything

LOOKUP = "dns.lookup.duration"
ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


@pytest.fixture
def loop():
    forget_everything()
    made = obsloop.Loop(settings=obsloop.Settings(name="main"))
    yield made
    made.run_until_complete(made.shutdown_default_executor())
    made.close()


@pytest.fixture
def slow_resolver(monkeypatch):
    """Names take 200 ms, as from a name server far away."""

    def getaddrinfo(*args, **kwargs):
        time.sleep(0.2)
        return ANSWER

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def counts(loop):
    """How many look-ups ended how."""
    return {error: histogram.count for (error,), histogram in loop.snapshot()[LOOKUP].items()}


@pytest.mark.parametrize("debug", [False, True])
def test_a_resolver_that_takes_200_ms(loop, slow_resolver, debug):
    """The time is found in the figure and in the event, in debug mode too."""
    loop.set_debug(debug)
    loop.slow_callback_duration = 1
    with Recorder() as events:
        assert loop.run_until_complete(loop.getaddrinfo("example.org", 80)) == ANSWER
    histogram = loop.snapshot().histogram(LOOKUP, "")
    assert histogram.count == 1
    assert histogram.sum >= 0.2
    (event,) = jobs(events)
    assert (event.via, event.executor, event.outcome) == ("getaddrinfo", "default", "ok")
    assert event.duration >= 0.2
    assert loop.snapshot().histogram("asyncio.executor.job.duration", "default", "ok").count == 1


def jobs(recorder):
    """Return the events of jobs. A busy machine also makes callbacks slow, which adds events."""
    return [event for event in recorder.events if isinstance(event, obsloop.events.ExecutorJob)]


def test_the_queue_is_not_the_resolvers(loop, slow_resolver):
    """With one thread the second look-up waits for the first one: 0.2 s each for the resolver, 0.2 s for the queue."""
    loop.set_default_executor(ThreadPoolExecutor(1))

    async def main():
        began = time.monotonic()
        await asyncio.gather(loop.getaddrinfo("one.example", 80), loop.getaddrinfo("two.example", 80))
        return time.monotonic() - began

    took = loop.run_until_complete(main())
    snapshot = loop.snapshot()
    lookups, queue = (
        snapshot.histogram(LOOKUP, ""),
        snapshot.histogram("asyncio.executor.job.queue_duration", "default", "ok"),
    )
    assert (lookups.count, queue.count) == (2, 2)
    assert 0.4 <= lookups.sum <= took
    assert queue.sum >= 0.18


def test_an_unknown_name(loop, monkeypatch):
    """The error goes by the resolver's own name for it."""

    def getaddrinfo(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with Recorder() as events:
        for _ in range(2):
            with pytest.raises(socket.gaierror):
                loop.run_until_complete(loop.getaddrinfo("nobody.invalid", 80))
    assert counts(loop) == {"EAI_NONAME": 2}
    assert {(event.outcome, event.error_type) for event in jobs(events)} == {("error", "socket.gaierror")}


def test_the_real_resolver_and_what_is_no_look_up(loop):
    """A name that cannot be, a bad argument; and a connection to an address, which needs no resolver."""

    async def main():
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("127.0.0.1", "no such service")
        with pytest.raises(TypeError):
            await loop.getaddrinfo(42, 80)
        host, port = await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        assert (host, port) == ("127.0.0.1", "80")
        before = counts(loop)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return before

    before = loop.run_until_complete(main())
    assert before == counts(loop) == {"EAI_SERVICE": 1, "TypeError": 1, "": 1}


def test_cancelled(loop, monkeypatch):
    """One that the resolver works on counts when it is over; one that never got there is no look-up."""
    held, began = threading.Event(), threading.Event()

    def getaddrinfo(*args, **kwargs):
        began.set()
        held.wait(LIMIT)
        return ANSWER

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    loop.set_default_executor(ThreadPoolExecutor(1))

    async def main():
        tasks = [asyncio.ensure_future(loop.getaddrinfo("example.org", 80)) for _ in range(2)]
        while not began.is_set():
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert counts(loop) == {}
        held.set()
        while not counts(loop):
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), LIMIT))
    assert counts(loop) == {"": 1}
    snapshot = loop.snapshot()
    assert snapshot.histogram("asyncio.executor.job.queue_duration", "default", "cancelled").count == 2


def test_names_are_not_the_users_jobs(loop):
    """By the event one can tell which is which."""

    async def main():
        await loop.run_in_executor(None, int)
        await asyncio.to_thread(int)
        await loop.getaddrinfo("localhost", 80)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)

    with Recorder() as events:
        loop.run_until_complete(main())
    assert [event.via for event in jobs(events)] == ["run_in_executor", "to_thread", "getaddrinfo", "getnameinfo"]


QUESTIONS = (
    (("127.0.0.1", 80), {}),
    (("127.0.0.1", "80"), {"type": socket.SOCK_STREAM}),
    (("127.0.0.1", None), {"family": socket.AF_INET, "type": socket.SOCK_DGRAM}),
    (("::1", 80), {"proto": socket.IPPROTO_TCP, "flags": socket.AI_NUMERICHOST}),
    (("2001:db8::1", 0), {"flags": socket.AI_PASSIVE}),
    (("255.255.255.255", 65535), {}),
    (("2001:DB8:0:0::1", 443), {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}),
    (("192.0.2.1", "0443"), {"type": socket.SOCK_DGRAM, "flags": socket.AI_NUMERICSERV}),
    (("192.0.2.1", None), {"type": socket.SOCK_RAW, "proto": 1}),
    (("::ffff:192.0.2.1", 80), {"family": socket.AF_INET6}),
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_address_needs_no_thread(loop, question):
    """The answer is that of the socket module; it counts as a look-up, no thread starts, and no job is seen."""
    args, kwargs = question
    with Recorder() as events:
        assert loop.run_until_complete(loop.getaddrinfo(*args, **kwargs)) == socket.getaddrinfo(*args, **kwargs)
    assert counts(loop) == {"": 1}
    assert jobs(events) == []
    assert loop._default_executor is None


def test_an_address_that_the_resolver_refuses(loop):
    """The error is that of the socket module, and counts under its name."""
    with pytest.raises(socket.gaierror) as stock:
        socket.getaddrinfo("127.0.0.1", 80, type=99)
    with pytest.raises(socket.gaierror) as ours:
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, type=99))
    assert ours.value.args == stock.value.args
    assert list(counts(loop).values()) == [1]
    assert loop._default_executor is None


@pytest.mark.parametrize(
    "question",
    [
        (("localhost", 80), {}),
        (("127.0.0.1", "http"), {}),
        (("127.0.0.1", 80), {"flags": socket.AI_CANONNAME}),
        (("::1%1", 80), {}),
        (("127.1", 80), {}),
        ((b"127.0.0.1", 80), {}),
        ((None, 80), {}),
    ],
)
def test_what_may_take_long_has_a_thread(loop, question):
    """Names of hosts and services, scopes, and unusual forms. Without a list of services the error is the same."""
    args, kwargs = question

    def outcome(look_up: Callable[[], object]) -> object:
        try:
            return look_up()
        except socket.gaierror as error:
            return error.args

    found = outcome(lambda: loop.run_until_complete(loop.getaddrinfo(*args, **kwargs)))
    assert found == outcome(lambda: socket.getaddrinfo(*args, **kwargs))
    assert loop._default_executor is not None


def test_an_address_is_a_job_where_the_program_sees_jobs(loop, monkeypatch):
    """In debug mode, with a replaced function, an executor of its own, or a method of its own."""
    asked: list[str] = []
    loop.set_debug(True)
    loop.slow_callback_duration = LIMIT
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    assert loop._default_executor is not None
    loop.set_debug(False)

    class Mine(obsloop.Loop):
        def run_in_executor(self, executor, func, *args):
            asked.append("method")
            return super().run_in_executor(executor, func, *args)

    mine = Mine()
    mine.run_until_complete(mine.getaddrinfo("127.0.0.1", 80))
    mine.run_until_complete(mine.shutdown_default_executor())
    with pytest.raises(RuntimeError):
        mine.run_until_complete(mine.getaddrinfo("127.0.0.1", 80))
    mine.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: asked.append(threading.current_thread().name) or ANSWER)
    assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80)) == ANSWER
    assert asked[:2] == ["method", "method"]
    assert asked[2].startswith("asyncio")


def test_an_address_after_the_executor_was_shut_down(loop):
    """Asyncio refuses it, and so does this loop."""
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
