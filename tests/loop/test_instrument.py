"""`instrument()` turns a loop that already runs into an observed one, in place; what it carries goes on."""

import asyncio
import os
import signal
import socket
import sys
import threading
import types

import pytest

import obsloop
from tests.support import LIMIT, counts, output, ran_ns, run_briefly

pytestmark = pytest.mark.usefixtures("clean_metrics")


@pytest.fixture
def stock():
    """A stock loop, closed afterwards, whatever it has become."""
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def run(loop, coroutine):
    return loop.run_until_complete(asyncio.wait_for(coroutine, LIMIT))


def test_the_running_loop_becomes_observed(stock):
    """Called from a coroutine without an argument: the same object, an obsloop.Loop, and what follows is timed."""

    async def main() -> None:
        loop = obsloop.instrument()
        assert loop is stock is asyncio.get_running_loop()
        assert isinstance(loop, obsloop.Loop)
        loop.call_soon(str)
        await asyncio.sleep(0)  # the books begin with the next iteration, and the timer is not set before
        await asyncio.sleep(0.01)

    run(stock, main())
    found = counts(stock.snapshot())
    assert found["callback"] >= 1
    assert found["task_step"] >= 1
    assert found["timer"] >= 1
    assert ran_ns(stock.snapshot()) >= 10_000_000
    assert not stock.snapshot().running


def test_a_loop_that_does_not_run_yet(stock):
    """Given as an argument, before it runs; and what was scheduled on the stock loop is run and timed."""
    ran: list[str] = []
    stock.call_soon(ran.append, "before")
    stock.call_later(0, ran.append, "timer before")
    assert obsloop.instrument(stock) is stock
    stock.call_soon(ran.append, "after")
    run_briefly(stock)
    assert sorted(ran) == ["after", "before", "timer before"]
    assert counts(stock.snapshot()) == {"other": 1, "timer": 1, "callback": 1}


def test_twice_is_harmless(stock):
    """The second time changes nothing and loses nothing."""

    async def main() -> None:
        first = obsloop.instrument()
        cls, figures = type(first), first.snapshot()
        assert obsloop.instrument() is first
        assert obsloop.instrument(first, obsloop.Settings(name="another")) is first
        assert type(first) is cls
        assert first.snapshot().loop_name == figures.loop_name == "main"

    run(stock, main())
    made = obsloop.new_event_loop()
    assert obsloop.instrument(made) is made
    made.close()


class ProgramsLoop(asyncio.SelectorEventLoop):
    """A loop class of the program's own."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        super().__init__()

    def call_soon(self, callback, *args, context=None):
        self.noted.append("call_soon")
        return super().call_soon(callback, *args, context=context)

    def own_method(self) -> str:
        return "own"


def test_a_subclass_keeps_its_own_methods():
    """What it overrides is still called, what it adds is still there, and its callbacks are timed."""
    loops = [ProgramsLoop(), ProgramsLoop()]
    for loop in loops:
        obsloop.instrument(loop)
        assert isinstance(loop, ProgramsLoop)
        assert isinstance(loop, obsloop.Loop)
        loop.noted.clear()
        loop.call_soon(str)
        run_briefly(loop)
        assert loop.noted == ["call_soon"]
        assert loop.own_method() == "own"
    assert type(loops[0]) is type(loops[1]), "one class for each class, not for each loop"
    assert counts(loops[0].snapshot()) == {"callback": 2}
    for loop in loops:
        loop.close()


def test_without_a_running_loop_the_error_says_what_to_do():
    """Nothing to observe: call it from within, or give it the loop."""
    with pytest.raises(obsloop.InstrumentError, match=r"no loop is running in this thread: .* give it the loop"):
        obsloop.instrument()


def foreign_class(module: str) -> type[asyncio.AbstractEventLoop]:
    """A loop class that is none of asyncio's."""
    return types.new_class("Loop", (asyncio.AbstractEventLoop,), exec_body=lambda ns: ns.update(__module__=module))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "somewhere.loops",
            r"class somewhere\.loops\.Loop: expected asyncio\.SelectorEventLoop or a subclass.*loop_factory",
        ),
    ],
)
def test_a_foreign_loop_is_refused_with_its_class_and_what_to_do(module, message):
    """The class is named, and the loop is left as it was."""
    loop = foreign_class(module)()
    cls = type(loop)
    with pytest.raises(obsloop.InstrumentError, match=message):
        obsloop.instrument(loop)
    assert type(loop) is cls
    assert vars(loop) == {}
    assert issubclass(obsloop.InstrumentError, TypeError)


def test_what_was_on_the_loop_before_goes_on_and_is_timed(stock):
    """A reader, a timer, a signal handler, a task and a thread's call from before: all go on, each under its kind."""
    happened: dict[str, asyncio.Event] = {}
    ours, theirs = socket.socketpair()

    def read() -> None:
        ours.recv(10)
        happened["reader"].set()

    async def old_task() -> None:
        await happened["go"].wait()
        happened["task"].set()

    async def main() -> None:
        happened.update({name: asyncio.Event() for name in ("reader", "timer", "signal", "task", "go")})
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, read)
        loop.add_signal_handler(signal.SIGUSR1, happened["signal"].set)
        task = loop.create_task(old_task())
        await asyncio.sleep(0)
        loop.call_later(0.01, happened["timer"].set)  # it cannot run before the next await
        loop.call_soon_threadsafe(str)
        obsloop.instrument()
        theirs.send(b"x")
        os.kill(os.getpid(), signal.SIGUSR1)
        happened.pop("go").set()
        for event in happened.values():
            await event.wait()
        await task

    run(stock, main())
    stock.remove_reader(ours)
    stock.remove_signal_handler(signal.SIGUSR1)
    ours.close()
    theirs.close()
    found = counts(stock.snapshot())
    assert found["reader"] >= 2  # ours, and the self-pipe
    assert found["timer"] >= 1
    assert found["signal"] == 1
    assert found["task_step"] >= 2


def test_open_connections_keep_working(stock):
    """A server, its connections and a subprocess's pipe from before the change: bytes go both ways after it."""

    async def echo(reader, writer) -> None:
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            cat = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print(input())", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            obsloop.instrument()
            for n in range(50):
                writer.write(b"%5d" % n)
                assert await reader.readexactly(5) == b"%5d" % n
            out, _ = await cat.communicate(b"through the pipe\n")
            assert out.rstrip() == b"through the pipe"
            writer.close()
            await writer.wait_closed()
            assert await asyncio.to_thread(str, 7) == "7"

    run(stock, main())
    run(stock, stock.shutdown_default_executor())
    assert counts(stock.snapshot())["reader"] >= 100


@pytest.mark.parametrize("again", [False, True])
def test_it_stops_runs_again_and_closes_like_any_loop(stock, again):
    """Turned while it runs, then stopped: the books are closed; run again, they go on."""
    stock.call_soon(obsloop.instrument)
    stock.call_later(0.01, stock.stop)
    stock.run_forever()
    assert not stock.snapshot().running
    ran = ran_ns(stock.snapshot())
    if again:
        stock.call_soon(stock.call_later, 0.01, stock.stop)  # it is set when the books are open
        stock.run_forever()
        assert ran_ns(stock.snapshot()) >= ran + 10_000_000
    assert not stock.snapshot().running
    stock.close()
    assert stock.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        stock.call_soon(str)


def test_from_another_thread_while_it_runs():
    """A monitor that instruments the main loop: nothing that the loop does meanwhile goes wrong."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            loop = asyncio.SelectorEventLoop()
            errors: list[object] = []
            loop.set_exception_handler(lambda loop, context, errors=errors: errors.append(context))
            begun = threading.Event()

            async def busy(begun=begun, loop=loop) -> None:
                begun.set()
                while not isinstance(loop, obsloop.Loop):
                    await asyncio.sleep(0)
                for _ in range(3):
                    await asyncio.sleep(0)

            def monitor(begun=begun, loop=loop) -> None:
                begun.wait()
                obsloop.instrument(loop)

            thread = threading.Thread(target=monitor)
            thread.start()
            loop.run_until_complete(busy())
            thread.join()
            loop.close()
            assert errors == []
    finally:
        sys.setswitchinterval(interval)


def test_debug_mode_is_kept():
    """A loop in debug mode stays in it, and checks as before."""
    assert (
        output("""
        import asyncio, obsloop
        async def main():
            loop = obsloop.instrument()
            print(loop.get_debug(), loop.slow_callback_duration)
            try:
                loop.call_soon(main)
            except TypeError as exc:
                print(exc)
        asyncio.run(main(), debug=True)
        """)
        == "True 0.1\ncoroutines cannot be used with call_soon()\n"
    )
