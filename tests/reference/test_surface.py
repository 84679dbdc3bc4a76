"""The loop's surface: every method of the reference is there, and takes what the stock loop's takes."""

import asyncio
import inspect

import pytest

#: The reference's methods, in its order.
REFERENCE = [
    "run_forever",
    "run_until_complete",
    "is_running",
    "stop",
    "is_closed",
    "close",
    "call_soon",
    "call_soon_threadsafe",
    "call_later",
    "call_at",
    "time",
    "create_future",
    "create_task",
    "set_task_factory",
    "get_task_factory",
    "create_connection",
    "create_datagram_endpoint",
    "create_unix_connection",
    "create_server",
    "create_unix_server",
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "sock_recv",
    "sock_sendall",
    "sock_connect",
    "sock_accept",
    "getaddrinfo",
    "getnameinfo",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_exec",
    "subprocess_shell",
    "add_signal_handler",
    "remove_signal_handler",
    "run_in_executor",
    "set_default_executor",
    "set_exception_handler",
    "get_exception_handler",
    "default_exception_handler",
    "call_exception_handler",
    "get_debug",
    "set_debug",
]

#: What asyncio has added since, as far as this Python has it.
TODAY = sorted(
    name for name, member in inspect.getmembers(asyncio.SelectorEventLoop, callable) if not name.startswith("_")
)


def parameters(function):
    """Names, kinds and defaults of a function's parameters; annotations are no part of the contract."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_method_is_there(loop, name):
    """Each method that the reference names can be called on the loop."""
    assert callable(getattr(loop, name))
    assert name in TODAY


@pytest.mark.parametrize("name", TODAY)
def test_the_same_parameters(loop, name):
    """Same parameters, same order, same kinds, same defaults as the stock loop's method on this Python."""
    expected = parameters(getattr(asyncio.SelectorEventLoop, name))[1:]  # without self
    method = getattr(loop, name)
    if inspect.isbuiltin(method) and method.__text_signature__ is None:
        # A function written in C need not say what it takes; it can still be asked.
        assert expected == []
        method()
    else:
        assert parameters(method) == expected


@pytest.mark.parametrize("name", TODAY)
def test_coroutine_methods_are_coroutine_functions(loop_class, name):
    """What is `async def` in the stock loop is a coroutine function here, and nothing else is."""
    expected = inspect.iscoroutinefunction(getattr(asyncio.SelectorEventLoop, name))
    assert inspect.iscoroutinefunction(getattr(loop_class, name)) is expected


def test_it_is_an_asyncio_loop(loop):
    """By type it is what programs check for."""
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert isinstance(loop, asyncio.SelectorEventLoop)


def test_the_constructor_takes_a_selector(loop_class):
    """The stock constructor's arguments are taken, in their order, before any of our own."""
    stock = parameters(asyncio.SelectorEventLoop)
    assert parameters(loop_class)[: len(stock)] == stock
