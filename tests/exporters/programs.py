"""Observed programs for the exporters' tests: one that comes onto its loop by every way there is."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import obsloop
from obsloop.asgi import Middleware

T = TypeVar("T")

WAYS = ("task_step", "callback", "timer", "reader", "writer", "threadsafe", "signal")
"""The kinds of handle that `everything` runs. What is `other` comes only from loops that are not ours."""


UNUSED = {"asyncio.task.lint", "obsloop.instrument.disabled"}
"""The metrics of things that go wrong, which do not go wrong in `everything`: they have no series."""


def run(main: Callable[[], Any], name: str = "main") -> Any:
    """Run the coroutine function `main` on an observed loop called `name`."""
    return obsloop.run(main(), settings=obsloop.Settings(name=name))


def run_in_thread(main: Callable[[], Any], name: str) -> None:
    """Run `main` on a loop without settings in a thread called `name`, and wait for its end."""

    def target() -> None:
        obsloop.run(main(), settings=obsloop.Settings())

    thread = threading.Thread(target=target, name=name)
    thread.start()
    thread.join()


def everything(then: Callable[[], T]) -> Callable[[], Any]:
    """A program that fills every metric, and calls `then` while its timers are still pending."""

    async def main() -> T:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        happened = {way: asyncio.Event() for way in ("callback", "reader", "writer", "signal")}

        def read() -> None:
            if not ours.recv(100):
                loop.remove_reader(ours)
            happened["reader"].set()

        def write() -> None:
            loop.remove_writer(ours)
            happened["writer"].set()

        loop.add_reader(ours, read)
        loop.add_writer(ours, write)
        loop.add_signal_handler(signal.SIGUSR1, happened["signal"].set)
        loop.call_soon(happened["callback"].set)
        theirs.send(b"x")
        await asyncio.sleep(0)  # polls without a wait, and finds the byte waiting
        os.kill(os.getpid(), signal.SIGUSR1)
        for event in happened.values():
            await event.wait()
        await loop.run_in_executor(None, time.sleep, 0.001)
        await loop.getaddrinfo("localhost", 80)
        child = await asyncio.create_subprocess_exec("true")
        await child.wait()
        loop.set_exception_handler(lambda loop, context: None)
        await connections(loop)
        await Middleware(answer)({"type": "http", "path_template": "/"}, answer, answer)
        loop.call_soon(time.sleep, loop.slow_callback_duration)
        loop.call_exception_handler({"message": "as an example", "exception": ValueError()})
        await asyncio.sleep(0.001)
        for generation in range(3):
            gc.collect(generation)
        pending = [loop.call_later(3600, print), loop.call_later(3600, print)]
        pending[1].cancel()
        result = then()
        pending[0].cancel()
        loop.remove_reader(ours)
        loop.remove_signal_handler(signal.SIGUSR1)
        ours.close()
        theirs.close()
        return result

    return main


async def answer(*_: Any) -> None:
    """An ASGI application, and what it calls."""


async def steps() -> None:
    """Some iterations, and no timer: what loopback has to bring is there at once."""
    for _ in range(20):
        await asyncio.sleep(0)


async def connections(loop: asyncio.AbstractEventLoop) -> None:
    """One in clear, one whose TLS the other side hangs up on, and a server that cannot accept any more."""
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    transport.write(b"x")
    transport.close()
    await steps()

    class HangsUp(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.abort()

    rude = await loop.create_server(HangsUp, "127.0.0.1", 0)
    with contextlib.suppress(OSError):
        await loop.create_connection(
            asyncio.Protocol, *rude.sockets[0].getsockname(), ssl=ssl.create_default_context(), server_hostname="here"
        )
    rude.close()
    server.sockets[0].shutdown(socket.SHUT_RDWR)
    await steps()
    server.close()


async def little() -> None:
    """A few steps, a few timers, some idle time."""
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.sleep(0.005)
