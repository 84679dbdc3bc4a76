"""Callables with special methods that fail: the loop calls them as the stock loop does, and asks them nothing else."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from types import MethodType
from typing import Any

import pytest

from .support import WAYS, other_process, put, ready_fd, run_all, unwatch


def refuse(*args: object) -> Any:
    """A special method that no loop has a reason to call."""
    raise RuntimeError("the loop ran the program's code")


@dataclass
class Decorated:
    """A decorator as a dataclass: it compares by value, so it has no hash."""

    told: list[Any]

    def __call__(self, *args: Any) -> None:
        self.told.append("decorated")


class Untouchable:
    """A callable that nothing may be asked but to be called."""

    __hash__ = __eq__ = __bool__ = __len__ = __getattr__ = refuse  # type: ignore[assignment]
    __class__ = property(refuse)  # type: ignore[assignment]

    def __init__(self, told: list[Any]) -> None:
        self.told = told

    def __call__(self, *args: Any) -> None:
        self.told.append("untouchable")


class UntouchableList(list):
    """What the built-in method `append` is bound to here."""

    __hash__ = __eq__ = __bool__ = __getattr__ = refuse  # type: ignore[assignment]
    __class__ = property(refuse)  # type: ignore[assignment]


def strange(kind: str, told: list[Any]) -> Any:
    """A strange callable, which leaves something in `told` when it is called."""
    if kind == "method of an unhashable function":
        return MethodType(Decorated(told), object())
    if kind == "method of an untouchable function":
        return MethodType(Untouchable(told), object())
    if kind == "method of an untouchable object":
        return MethodType(lambda self, *args: told.append("method"), Untouchable(told))
    return Untouchable(told)


STRANGE = (
    "method of an unhashable function",
    "method of an untouchable function",
    "method of an untouchable object",
    "untouchable",
)


# In debug mode asyncio itself asks the other two whether they are coroutine functions.
CASES = [(kind, False) for kind in STRANGE] + [(STRANGE[0], True), (STRANGE[2], True)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "debug"), CASES)
def test_it_is_called_and_asked_nothing(make_loop, kind, way, debug):
    """Each way onto the loop, in and out of debug mode."""
    loop = make_loop()
    told: list[Any] = []
    errors: list[Any] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    callback = strange(kind, told)
    loop.set_debug(debug)
    with ready_fd(way) as fd:
        put(loop, way, fd, callback, 1)
        run_all(loop)
        unwatch(loop, way, fd)
    assert len(told) >= 1
    assert not errors


@pytest.mark.parametrize("kind", STRANGE)
def test_a_future_with_such_a_callback_has_its_result(make_loop, kind):
    """`set_result` does not raise, and the callbacks behind it are called too."""
    loop = make_loop()
    told: list[Any] = []
    future = loop.create_future()
    future.add_done_callback(strange(kind, told))
    future.add_done_callback(lambda _: told.append("the next one"))
    future.set_result(1)
    run_all(loop)
    assert len(told) == 2
    assert told[1] == "the next one"


def test_a_built_in_method_of_such_an_object(make_loop):
    """`append` of a list whose `__class__` fails: in call_soon and as a done callback."""
    loop = make_loop()
    told = UntouchableList()
    loop.call_soon(told.append, 1)
    future = loop.create_future()
    future.add_done_callback(told.append)
    future.set_result(2)
    run_all(loop)
    assert list.__len__(told) == 2


FIRST = """
import obsloop
class Mine(list):
    @property
    def __class__(self):
        raise RuntimeError("the loop ran the program's code")
loop, told = obsloop.Loop(), Mine()
loop.call_soon(told.append, "called")
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
print(*told)
"""


def test_a_built_in_method_before_any_task():
    """In a process in which the core has not seen a task's wake-up yet."""
    assert other_process(FIRST) == "called"


class OwnCoroutine(Coroutine[Any, Any, int]):
    """A coroutine of the program's own type, which cannot be asked for its class."""

    asked = 0

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        OwnCoroutine.asked += 1
        return OwnCoroutine

    def send(self, value: Any) -> Any:
        """End at once."""
        raise StopIteration(5)

    def throw(self, *args: Any) -> Any:
        """Raise it."""
        raise args[0]

    def close(self) -> None:
        """Nothing to close."""

    def __await__(self) -> Any:
        yield


def test_a_coroutine_of_an_own_type_is_asked_no_more_than_by_asyncio(make_loop):
    """asyncio asks for the class when the task is made; the loop does not ask again."""
    loop = make_loop()
    asyncio.Task(OwnCoroutine(), loop=loop)
    asyncios = OwnCoroutine.asked
    run_all(loop)
    OwnCoroutine.asked = 0
    task = loop.create_task(OwnCoroutine())
    run_all(loop)
    assert task.result() == 5
    assert OwnCoroutine.asked <= asyncios
    OwnCoroutine.asked = 0
