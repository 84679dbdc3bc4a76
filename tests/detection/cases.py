"""The cases: functions that block a loop, and how each gets onto it. Names and lines are those that events must show.

What is within ``with lasting():`` is the block itself; all else takes no time. A case runs in a process of its own.
"""

import asyncio
import os
import platform
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.detection import slow_resolver

BLOCK = 0.3
"""Seconds."""

spans: list[tuple[float, float]] = []
"""When a block, or a part of it, began and ended, by the monotonic clock: as the program itself sees it."""


@contextmanager
def lasting() -> Iterator[None]:
    """The block, or a part of it."""
    began = time.monotonic()
    yield
    spans.append((began, time.monotonic()))


# ---- the two ways to block -------------------------------------------------------------------------------------------


def sleep(seconds: float = BLOCK) -> None:
    """In a system call."""
    with lasting():
        time.sleep(seconds)


def compute(seconds: float = BLOCK) -> None:
    """By Python code; so many seconds of CPU time, however long that takes."""
    with lasting():
        enough = time.thread_time() + seconds
        while time.thread_time() < enough:
            pass


block: Callable[..., None] = sleep
"""The one that was chosen for this process."""

CAUSES = {"sleep": "syscall", "compute": "cpu"}
"""Way to block -> cause."""


def choose(way: str) -> None:
    """Block in this way."""
    global block
    block = {"compute": compute}.get(way, sleep)


# ---- the places ------------------------------------------------------------------------------------------------------


async def step() -> None:
    await asyncio.sleep(0.01)
    block()


async def task_step() -> None:
    await asyncio.create_task(step(), name="the task")


async def parent() -> None:
    await asyncio.sleep(0.01)
    await asyncio.create_task(child())


async def child() -> None:
    block()


async def eager_task() -> None:
    task = asyncio.create_task(parent(), name="the parent")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    await task


def on_soon() -> None:
    block()


async def call_soon() -> None:
    asyncio.get_running_loop().call_soon(on_soon)


def on_time() -> None:
    block()


async def call_later() -> None:
    asyncio.get_running_loop().call_later(0.01, on_time)


def from_a_thread() -> None:
    block()


async def call_soon_threadsafe() -> None:
    loop = asyncio.get_running_loop()
    threading.Thread(target=loop.call_soon_threadsafe, args=(from_a_thread,)).start()


def on_readable(sock: socket.socket) -> None:
    sock.recv(1)
    block()


async def add_reader() -> None:
    near, far = socket.socketpair()
    kept.extend([near, far])
    asyncio.get_running_loop().add_reader(near, on_readable, near)
    far.send(b"x")


def on_writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    loop.remove_writer(sock)
    block()


async def add_writer() -> None:
    loop, (near, far) = asyncio.get_running_loop(), socket.socketpair()
    kept.extend([near, far])
    loop.add_writer(near, on_writable, loop, near)


class Receiver(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        block()


async def protocol() -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    call(server)


async def handle_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    block()
    writer.close()


async def streams() -> None:
    call(await asyncio.start_server(handle_client, "127.0.0.1", 0))


def call(server: asyncio.Server) -> None:
    """Connect, and send a line."""
    client = socket.create_connection(server.sockets[0].getsockname())
    client.send(b"x\n")
    kept.extend([server, client])


def on_signal() -> None:
    block()


async def signal_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, on_signal)
    os.kill(os.getpid(), signal.SIGUSR1)


def on_result(future: asyncio.Future[Any]) -> None:
    block()


async def executor_future() -> None:
    asyncio.get_running_loop().run_in_executor(None, int).add_done_callback(on_result)


def on_done(future: asyncio.Future[Any]) -> None:
    block()


async def future_callback() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    future.add_done_callback(on_done)
    loop.call_soon(future.set_result, None)


async def produce() -> AsyncIterator[int]:
    await asyncio.sleep(0.01)
    block()
    yield 1


async def consume() -> None:
    async for _ in produce():
        pass


async def async_generator() -> None:
    await asyncio.create_task(consume(), name="the consumer")


SIXTY = 60


def short() -> None:
    block(BLOCK / SIXTY)


async def sixty_callbacks() -> None:
    for _ in range(SIXTY):
        asyncio.get_running_loop().call_soon(short)


# ---- what is known to block ------------------------------------------------------------------------------------------

PATTERN = re.compile(r"(a+)+$")
text = ""


def long_enough() -> None:
    """Find a text that the pattern takes 0.4 s or more for: each letter doubles the time."""
    global text
    took, letters = 0.0, 15
    while took < BLOCK / 6:
        letters += 1
        text = "a" * letters + "b"
        began = time.thread_time()
        PATTERN.match(text)
        took = time.thread_time() - began
    text = "aaa" + text


async def match() -> None:
    await asyncio.sleep(0.01)
    with lasting():
        PATTERN.match(text)


async def regex() -> None:
    await asyncio.create_task(match(), name="the regex")


def resolve() -> None:
    with lasting():
        socket.getaddrinfo("slow.test.", 80, socket.AF_INET, socket.SOCK_STREAM)


async def getaddrinfo() -> None:
    asyncio.get_running_loop().call_soon(resolve)


def import_it() -> None:
    from tests.detection import slow_module  # noqa: F401 - it is slow to import


async def slow_import() -> None:
    asyncio.get_running_loop().call_later(0.01, import_it)


kept: list[Any] = []
"""What must live as long as the process."""

# ---- the list --------------------------------------------------------------------------------------------------------


def _nothing() -> None:
    """No preparations."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case, and what is to be said of it."""

    title: str
    arrange: Callable[[], Coroutine[Any, Any, None]]
    """Puts it onto the loop."""
    runs: str
    """The function or coroutine that the events must name."""
    kind: str
    through: str = ""
    """The function, or module, that it blocks in, where that is another one than ``runs``."""
    prepare: Callable[[], None] = _nothing
    """Called before there is a loop."""
    cause: str = ""
    """Where it is always the same; else the case is made to sleep, and to compute."""
    unseen: bool = False
    """Whether nobody can look while it lasts."""
    task_name: str | None = None
    detail: str = ""
    """What the events' detail begins with."""
    possible: bool = True
    """Whether this interpreter, or system, has it."""

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to block, for ``choose``."""
        return ("",) if self.cause else tuple(CAUSES)


# glibc alone lets a process choose its name server; the eager tasks are new in 3.12.
_GLIBC = platform.libc_ver()[0] == "glibc"

ALL = {
    case.arrange.__name__: case
    for case in [
        Case(title="task step", arrange=task_step, runs="step", kind="task_step", task_name="the task"),
        Case(
            title="eager task", arrange=eager_task, runs="child", kind="task_step", task_name="Task-",
            possible=sys.version_info >= (3, 12),
        ),
        Case(title="call_soon", arrange=call_soon, runs="on_soon", kind="callback"),
        Case(title="call_later", arrange=call_later, runs="on_time", kind="timer"),
        Case(title="call_soon_threadsafe", arrange=call_soon_threadsafe, runs="from_a_thread", kind="threadsafe"),
        Case(title="add_reader", arrange=add_reader, runs="on_readable", kind="reader"),
        Case(title="add_writer", arrange=add_writer, runs="on_writable", kind="writer"),
        Case(
            title="protocol's data_received", arrange=protocol, runs="Receiver.data_received", kind="reader",
            detail="from 127.0.0.1:",
        ),
        Case(title="streams handler", arrange=streams, runs="handle_client", kind="task_step", task_name="Task-"),
        Case(title="signal handler", arrange=signal_handler, runs="on_signal", kind="signal"),
        Case(title="done-callback of an executor future", arrange=executor_future, runs="on_result", kind="callback"),
        Case(title="done-callback of a future", arrange=future_callback, runs="on_done", kind="callback"),
        Case(
            title="async generator", arrange=async_generator, runs="consume", through="produce", kind="task_step",
            task_name="the consumer",
        ),
        Case(title="sixty callbacks of 5 ms in one iteration", arrange=sixty_callbacks, runs="short", kind="callback"),
        Case(
            title="catastrophic regex, holds the GIL", arrange=regex, runs="match", kind="task_step",
            prepare=long_enough, cause="cpu", unseen=True, task_name="the regex",
        ),
        Case(
            title="socket.getaddrinfo on the loop", arrange=getaddrinfo, runs="resolve", kind="callback",
            prepare=slow_resolver.use, cause="syscall", possible=_GLIBC,
        ),
        Case(
            title="import of a slow module", arrange=slow_import, runs="import_it", through="slow_module", kind="timer",
        ),
    ]
}  # fmt: skip
"""Function that arranges it -> the case."""
POSSIBLE = {name: case for name, case in ALL.items() if case.possible}
