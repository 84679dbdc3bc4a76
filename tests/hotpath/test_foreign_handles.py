"""Handles of other classes on the queue: whatever their attributes mean, they run as on the stock loop."""

import asyncio
from unittest import mock

import pytest

import obsloop
from tests.support import counts, run_briefly, stepped


class Labelled(asyncio.Handle):
    """A handle of the program's own, which has marks of its own under the names that ours have."""

    def __init__(self, kind, ready_ns, callback, loop):
        super().__init__(callback, (), loop)
        self._kind, self._ready_ns = kind, ready_ns


class Bare:
    """All that the stock loop asks of a handle: ``_run`` and ``_cancelled``."""

    _cancelled = False

    def __init__(self, callback):
        self._run = callback


MARKS = {
    "a name": "urgent",
    "None": None,
    "a float": 1.5,
    "no kind of ours": 7,
    "far outside": 1 << 40,
    "below zero": -1,
    "larger than 64 bits": 1 << 80,
    "a mock": mock.MagicMock(),
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize("which", ["kind", "ready_ns"])
def test_a_handle_with_marks_of_its_own_runs(which, mark):
    """It runs, counts as `other`, and the loop goes on: with what follows it, a new task too."""
    with stepped() as (_, loop):
        ran = []
        marks = (mark, 0) if which == "kind" else (0, mark)
        loop._ready.append(Labelled(*marks, lambda: ran.append("theirs"), loop))
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon(ran.append, "next")
        run_briefly(loop)
        assert ran == ["theirs", "next"]
        assert counts(loop.snapshot())["other"] == 1


def test_a_mock_of_a_handle_runs():
    """Mocks have every attribute. CPython's own tests put them on the queue."""
    loop = obsloop.Loop()
    handle = mock.MagicMock(_cancelled=False)
    loop._ready.append(handle)
    run_briefly(loop)
    handle._run.assert_called_once_with()
    loop.close()


def test_a_handle_without_a_callback_runs():
    """The stock loop calls `_run` and looks at nothing else."""
    loop = obsloop.Loop()
    ran = []
    loop._ready.append(Bare(lambda: ran.append(1)))
    run_briefly(loop)
    assert ran == [1]
    loop.close()


def test_a_slow_handle_with_marks_of_its_own_is_told_of():
    """Naming it does not stumble over them either; nor does an error in it."""
    with stepped() as (clock, loop):
        loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
        told = []

        def slow():
            clock.advance(10)
            raise ValueError

        loop._ready.append(Labelled("slow", "now", slow, loop))
        run_briefly(loop)
        assert len(told) == 1
        assert counts(loop.snapshot())["other"] == 1


def test_a_task_made_behind_such_a_handle_is_counted():
    """A factory that puts a handle of its own onto the queue, after the task's."""
    loop = obsloop.Loop()

    def factory(loop, coro, **kwargs):
        task = asyncio.Task(coro, loop=loop, **kwargs)
        loop._ready.append(mock.MagicMock(_cancelled=False))
        return task

    loop.set_task_factory(factory)
    loop.run_until_complete(loop.create_task(asyncio.sleep(0)))
    assert loop.snapshot().value("asyncio.task.finished", "ok") >= 1
    loop.close()
