"""The exception handler: set, get, the default one, one that raises. What reaches it: test_errors."""

import asyncio
import contextvars
import io
import logging
import sys

import pytest

from .support import fail, run, run_batch

story = contextvars.ContextVar("story", default="untold")


def test_set_and_get(loop):
    """The default is None; a handler is given back as it was set; None restores the default."""

    def handler(loop, context):
        pass

    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("thing", [42, "handler", {}, False])
def test_a_handler_must_be_callable(loop, thing):
    """Neither callable nor None: TypeError, and the handler of before stays."""
    with pytest.raises(TypeError, match="A callable object or None is expected"):
        loop.set_exception_handler(thing)
    assert loop.get_exception_handler() is None


def test_call_exception_handler_passes_the_dict_on(loop, contexts):
    """Code of any kind can report to the handler, with keys of its own."""
    context = {"message": "a known message", "exception": LookupError(), "a key of mine": 1}
    assert loop.call_exception_handler(context) is None
    assert contexts[0] is context


def test_the_default_handler_logs(loop, asyncio_log):
    """Without a handler an error is logged as ERROR on 'asyncio', keys sorted below the message."""
    loop.call_exception_handler({"message": "a known message", "zebra": 1, "aardvark": "two"})
    assert asyncio_log() == ["a known message\naardvark: 'two'\nzebra: 1"]
    loop.call_exception_handler({})
    assert asyncio_log()[1] == "Unhandled exception in event loop"


def test_the_default_handler_logs_the_exception(loop, caplog):
    """The log record carries the exception with its traceback, and the handle's repr."""
    loop.call_soon(fail)
    run_batch(loop)
    (record,) = [record for record in caplog.records if record.name == "asyncio"]
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("Exception in callback fail()")
    assert "handle: <Handle fail() at " in record.getMessage()
    assert record.exc_info[0] is LookupError
    assert record.exc_info[2] is not None


def test_a_handler_may_defer_to_the_default(loop, asyncio_log):
    """default_exception_handler can be called by a custom handler."""
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_exception_handler({"message": "deferred"})
    assert asyncio_log() == ["deferred"]


def test_a_handler_that_raises(loop, caplog):
    """Its error is logged together with the context that it was given, and the loop goes on."""

    def bad(loop, context):
        raise KeyError("the handler's own")

    loop.set_exception_handler(bad)
    seen = []
    loop.call_soon(fail)
    loop.call_soon(seen.append, "behind")
    run_batch(loop)
    assert seen == ["behind"]
    (record,) = [record for record in caplog.records if record.name == "asyncio"]
    assert record.getMessage().startswith("Unhandled error in exception handler")
    assert "context: {" in record.getMessage()
    assert "on purpose" in record.getMessage()
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_handler_may_leave_the_loop(loop, error):
    """KeyboardInterrupt and SystemExit raised by the handler leave run_forever."""

    def leave(loop, context):
        raise error("enough")

    loop.set_exception_handler(leave)
    loop.call_soon(fail)
    with pytest.raises(error, match="enough"):
        run_batch(loop)
    assert not loop.is_running()


def test_a_subclass_default_handler_that_raises(loop_class, caplog):
    """A broken default_exception_handler is logged as well, and breaks nothing."""

    class Broken(loop_class):
        def default_exception_handler(self, context):
            raise KeyError("the default handler's own")

    loop = Broken()
    try:
        loop.call_soon(fail)
        run_batch(loop)
    finally:
        loop.close()
    (record,) = [record for record in caplog.records if record.name == "asyncio"]
    assert record.getMessage() == "Exception in default exception handler"
    assert record.exc_info[0] is KeyError


def test_the_context_in_which_the_handler_runs(loop):
    """Since 3.12 the handler runs in the context of the failed handle, so that it sees its variables."""
    seen = []
    loop.set_exception_handler(lambda _loop, context: seen.append(story.get()))
    context = contextvars.copy_context()
    context.run(story.set, "the callback's")
    loop.call_soon(fail, context=context)
    run_batch(loop)
    assert seen == ["the callback's" if sys.version_info >= (3, 12) else "untold"]


def test_errors_of_many_threads(loop, contexts):
    """call_exception_handler from another thread works: executors report through it."""

    async def main():
        await asyncio.gather(*(asyncio.to_thread(loop.call_exception_handler, {"message": str(n)}) for n in range(20)))

    run(loop, main())
    assert sorted(int(context["message"]) for context in contexts) == list(range(20))


def test_nothing_is_logged_for_what_the_handler_took(loop, contexts, asyncio_log):
    """A custom handler replaces the log, and stderr stays quiet."""
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        loop.call_soon(fail)
        run_batch(loop)
        written = sys.stderr.getvalue()
    finally:
        sys.stderr = stderr
    assert len(contexts) == 1
    assert asyncio_log() == []
    assert written == ""
