"""Errors that nobody caught: counted and told, and then dealt with exactly as asyncio would have."""

import asyncio
import gc
import logging

import pytest

import obsloop
from tests.support import run_briefly

EXCEPTIONS = "asyncio.eventloop.exceptions"


class Listener:
    """Keeps the errors it is told of."""

    def __init__(self) -> None:
        self.errors: list[obsloop.events.CallbackError] = []

    def on_callback_error(self, event):
        self.errors.append(event)


@pytest.fixture
def observed(clean_metrics):
    """An observed loop and who listens to it."""
    loop = obsloop.Loop()
    listener = Listener()
    loop.add_instrument(listener)
    yield loop, listener
    loop.close()


def fail(text: str = "secret") -> None:
    raise LookupError(text)


def test_an_error_in_a_callback_is_counted_told_and_logged_by_asyncio(observed, caplog):
    """By the exception's class and by origin; the event leads to the line and carries no text of the error."""
    loop, listener = observed
    loop.call_soon(fail)
    run_briefly(loop)
    assert loop.snapshot()[EXCEPTIONS] == {("LookupError", "callback"): 1}
    (event,) = listener.errors
    assert (event.name, event.filename, event.kind) == (f"{__name__}.fail", __file__, "callback")
    assert event.lineno == fail.__code__.co_firstlineno
    assert event.detail == f"raised at {__file__}:{fail.__code__.co_firstlineno + 1}"
    assert isinstance(event.exception, LookupError)
    assert "secret" not in repr(event)
    (record,) = [r for r in caplog.records if r.name == "asyncio"]
    assert record.getMessage().startswith("Exception in callback fail()")


def test_the_programs_own_handler_is_shown_and_called_as_if_ours_were_not_there(observed, caplog):
    """get_exception_handler shows the program's only; set to None, asyncio's default is back."""
    loop, listener = observed
    assert loop.get_exception_handler() is None
    seen = []

    def handler(loop, context):
        seen.append((loop, context["exception"]))

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.call_soon(fail)
    run_briefly(loop)
    assert [(which is loop, type(error)) for which, error in seen] == [(True, LookupError)]
    assert caplog.records == []
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    loop.call_soon(fail)
    run_briefly(loop)
    assert (len(seen), len(caplog.records), len(listener.errors)) == (1, 1, 2)


def test_what_is_no_handler_is_refused_as_by_asyncio(observed):
    """And the one from before stays."""
    loop, _ = observed
    loop.set_exception_handler(print)
    with pytest.raises(TypeError, match="A callable object or None is expected"):
        loop.set_exception_handler("print")
    assert loop.get_exception_handler() is print


def records_of(loop, caplog) -> list[tuple[str, type | None]]:
    """What asyncio logs when a callback fails on `loop`, with the paths and handles left out."""
    caplog.clear()
    loop.call_soon(fail)
    run_briefly(loop)
    return [(r.getMessage().partition("\n")[0], r.exc_info and r.exc_info[0]) for r in caplog.records]


@pytest.mark.parametrize("broken", ["handler", "default", "both"])
def test_a_handler_that_raises_follows_asyncios_rules(observed, caplog, monkeypatch, broken):
    """The same lines as on the stock loop, whichever of the two handlers raises."""
    ours, listener = observed
    stock = asyncio.SelectorEventLoop()

    def raises(*args):
        raise ZeroDivisionError

    for loop in (ours, stock):
        if broken in ("handler", "both"):
            loop.set_exception_handler(raises)
        if broken in ("default", "both"):
            loop.default_exception_handler = raises
    try:
        with caplog.at_level(logging.DEBUG, "asyncio"):
            expected = records_of(stock, caplog)
            assert records_of(ours, caplog) == expected
    finally:
        stock.close()
    assert len(expected) == 1
    assert len(listener.errors) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_handler_may_end_the_program(observed, error):
    """SystemExit and KeyboardInterrupt leave the handler, as they do in asyncio."""
    loop, _ = observed

    def handler(loop, context):
        raise error

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(error):
        run_briefly(loop)


def test_never_retrieved_errors_come_through(observed, caplog):
    """Of a task under the coroutine's name, of a future without one; and a task that was destroyed while it waited."""
    loop, listener = observed

    async def forgotten() -> None:
        raise OSError("nobody asks")

    async def abandoned() -> None:
        await asyncio.get_running_loop().create_future()

    loop.create_task(forgotten(), name="forgotten one")
    loop.create_future().set_exception(ValueError("nobody asks"))
    waiting = loop.create_task(abandoned())
    run_briefly(loop)
    run_briefly(loop)
    waiting.get_coro().close()
    del waiting
    gc.collect()
    found = {(e.origin, e.error_type): e for e in listener.errors}
    assert found.keys() == {("task", "OSError"), ("future", "ValueError"), ("task", "")}
    assert found["task", "OSError"].name.endswith("<locals>.forgotten")
    assert found["task", "OSError"].task_name == "forgotten one"
    assert loop.snapshot()[EXCEPTIONS] == {("OSError", "task"): 1, ("ValueError", "future"): 1, ("", "task"): 1}


def test_a_protocol_that_raises_is_of_origin_transport(observed, caplog):
    """A fatal error of a transport names the protocol's class."""
    loop, listener = observed

    class Server(asyncio.Protocol):
        def data_received(self, data):
            raise KeyError("the payload")

    async def main() -> None:
        server = await loop.create_server(Server, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        while not listener.errors:
            await asyncio.sleep(0.001)
        writer.close()
        server.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    (event,) = listener.errors
    assert (event.origin, event.error_type) == ("transport", "KeyError")
    assert event.name.endswith("<locals>.Server")
    assert "payload" not in repr(event)


def test_fifty_classes_of_errors_and_then_other(observed):
    """The label is bounded, whatever a program raises; what was folded is counted."""
    loop, listener = observed
    loop.set_exception_handler(lambda loop, context: None)
    for i in range(53):
        loop.call_exception_handler({"message": "", "exception": type(f"Error{i}", (Exception,), {})()})
    points = loop.snapshot()[EXCEPTIONS]
    assert len(points) == 51
    assert points["_OTHER", "other"] == 3
    assert obsloop.process_snapshot().value("obsloop.dropped", "error.type") == 3
    assert len(listener.errors) == 53


def test_whatever_is_in_the_context_counting_does_not_fail(observed, caplog):
    """The context is the caller's, and may hold anything."""
    loop, listener = observed
    loop.set_exception_handler(lambda loop, context: None)
    for context in (
        {},
        {"message": "no exception"},
        {"exception": "a string"},
        {"handle": object(), "exception": KeyError()},
        {"task": object()},
        {"protocol": 1, "transport": None},
        {"asyncgen": object()},
        {"socket": object()},
    ):
        loop.call_exception_handler(context)
    assert len(listener.errors) == 8
    assert [r for r in caplog.records if r.name == "obsloop"] == []


def test_call_exception_handler_is_asyncios_own():
    """Its documentation says that it should not be overloaded."""
    assert obsloop.Loop.call_exception_handler is asyncio.SelectorEventLoop.call_exception_handler
