"""Fixtures that many folders of tests need: a loop of each kind, closed when the test is over.

`loop_kind` runs a test twice, on the stock `asyncio.SelectorEventLoop` and on `obsloop.Loop`. The stock half
shows that the test states what asyncio really does, the other half that we do the same.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

LoopFactory = Callable[..., asyncio.AbstractEventLoop]


@pytest.fixture(params=["stock", "obsloop"])
def loop_kind(request) -> str:
    """The name of the loop under test."""
    return request.param


@pytest.fixture
def loop_class(loop_kind) -> type[asyncio.SelectorEventLoop]:
    """The class of the loop under test."""
    if loop_kind == "stock":
        return asyncio.SelectorEventLoop
    import obsloop  # here, so that the stock half runs whatever state ours is in

    return obsloop.Loop


@pytest.fixture
def make_loop(loop_class) -> Iterator[LoopFactory]:
    """A function that makes loops of the class under test; what it made is closed afterwards."""
    made: list[asyncio.AbstractEventLoop] = []

    def make(*args, **kwargs) -> asyncio.AbstractEventLoop:
        loop = loop_class(*args, **kwargs)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        if not loop.is_closed():
            loop.set_task_factory(None)  # a test may have left one that makes no tasks
            loop.run_until_complete(asyncio.wait_for(loop.shutdown_default_executor(), 30))
            loop.close()


@pytest.fixture
def loop(make_loop) -> asyncio.AbstractEventLoop:
    """One loop of the class under test."""
    return make_loop()


@pytest.fixture
def clean_ledger() -> None:
    """No figures from the tests before: as if no observed loop had run in this process."""
    from .support import forget_everything

    forget_everything()


@pytest.fixture
def stepped():
    """A step clock and an observed loop that is timed with it."""
    from .support import stepped

    with stepped() as clock_and_loop:
        yield clock_and_loop
