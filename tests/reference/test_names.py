"""getaddrinfo and getnameinfo: like the socket module's, off the loop's thread."""

import asyncio
import concurrent.futures
import inspect
import socket
import threading

import pytest

from .support import LIMIT, run


def test_getaddrinfo_is_that_of_socket(loop):
    """The same answer as socket.getaddrinfo gives to the same question."""

    async def main():
        for args, kwargs in (
            (("localhost", 80), {"type": socket.SOCK_STREAM}),
            (("127.0.0.1", "80"), {"family": socket.AF_INET, "proto": socket.IPPROTO_TCP}),
            ((None, 80), {"flags": socket.AI_PASSIVE, "type": socket.SOCK_DGRAM}),
            (("::1", 80), {"flags": socket.AI_NUMERICHOST}),
        ):
            assert await loop.getaddrinfo(*args, **kwargs) == socket.getaddrinfo(*args, **kwargs)

    run(loop, main())


def test_getnameinfo_is_that_of_socket(loop):
    """The same for addresses to names."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

    async def main():
        assert await loop.getnameinfo(("127.0.0.1", 80), numeric) == ("127.0.0.1", "80")
        assert await loop.getnameinfo(("127.0.0.1", 80)) == socket.getnameinfo(("127.0.0.1", 80), 0)

    run(loop, main())


def test_both_are_coroutines(loop):
    """They are coroutine functions: nothing happens before they are awaited."""
    assert inspect.iscoroutinefunction(loop.getaddrinfo)
    assert inspect.iscoroutinefunction(loop.getnameinfo)


def test_an_unknown_name(loop):
    """A failed look-up raises what the socket module raises."""

    async def main():
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("name.invalid", 80)
        with pytest.raises(socket.gaierror):
            await loop.getnameinfo(("name.invalid", 80), 0)

    run(loop, main())


def test_a_slow_resolver_does_not_hold_the_loop(loop, monkeypatch):
    """While a resolver takes its time, the loop goes on."""
    answer = threading.Event()
    real = socket.getaddrinfo

    def slow(*args, **kwargs):
        assert answer.wait(LIMIT)
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main():
        looking = asyncio.ensure_future(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not looking.done()
        answer.set()
        return await looking

    assert run(loop, main())[0][4] == ("127.0.0.1", 80)


def test_look_ups_use_the_default_executor(loop):
    """They run in the executor of set_default_executor, where a program can count or limit them."""

    class Counting(concurrent.futures.ThreadPoolExecutor):
        submitted = 0

        def submit(self, *args, **kwargs):
            self.submitted += 1
            return super().submit(*args, **kwargs)

    executor = Counting(1)
    loop.set_default_executor(executor)

    async def main():
        await loop.getaddrinfo("127.0.0.1", 80)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)

    run(loop, main())
    assert executor.submitted == 2
