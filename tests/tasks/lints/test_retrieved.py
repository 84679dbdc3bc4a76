"""Exceptions that nobody asked for: by the coroutine that raised them, each counted, told at 1, 2, 4 ..."""

import asyncio
import gc

import obsloop


async def fail() -> None:
    raise LookupError("nobody will know")


LINE = fail.__code__.co_firstlineno + 1


def found():
    return obsloop.snapshots()["left alone"].value("asyncio.task.lint", "exception_never_retrieved")


def run(main, **settings):
    async def quietly():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        await main()
        gc.collect()

    # On a busy machine a step may take a second, which would be another finding.
    obsloop.run(quietly(), settings=obsloop.Settings(name="left alone", never_yields_after=60, **settings))


def test_a_task_that_failed_unheard_is_named(told):
    """Coroutine, task, exception and the line that raised it; not what it said, nor a second line in the log."""

    async def main():
        asyncio.create_task(fail(), name="unheard")  # noqa: RUF006
        await asyncio.sleep(0.01)

    run(main)
    (event,) = told.lints
    assert (event.lint, event.name, event.task_name) == (
        "exception_never_retrieved", f"{__name__}.fail", "unheard",
    )  # fmt: skip
    assert (event.filename, event.lineno) == (__file__, fail.__code__.co_firstlineno)
    assert event.message == "failed with an exception that was never retrieved: LookupError"
    assert event.detail == f"raised at {__file__}:{LINE}"
    assert "nobody will know" not in repr(event)
    assert found() == 1


def test_each_is_counted_and_twice_as_many_are_told(told, caplog):
    """Ten of them: told at 1, 2, 4 and 8."""

    async def main():
        for _ in range(10):
            asyncio.create_task(fail())  # noqa: RUF006
            await asyncio.sleep(0.001)

    run(main)
    assert [event.count for event in told.lints] == [1, 2, 4, 8]
    assert found() == 10
    assert [r for r in caplog.records if r.name == "obsloop"] == []


def test_a_future_has_no_coroutine(told):
    """Its class stands for it."""

    async def main():
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OSError(5, "unheard"))

    run(main)
    (event,) = told.lints
    assert (event.name, event.filename) == ("_asyncio.Future", "")
    assert event.message == "was given an exception that was never retrieved: OSError"


def test_who_asks_or_is_told_otherwise_is_no_finding(told):
    """A retrieved exception, a callback that raises, a message of the program's own; and none where lints are off."""

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        assert task.exception()
        loop.call_soon(int, "x")
        loop.call_exception_handler({"message": "in vain"})
        loop.call_exception_handler({"message": 7})
        await asyncio.sleep(0.01)

    async def fails():
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(0.01)

    run(main)
    run(fails, lints=False)
    assert told.lints == []
    assert found() == 0
