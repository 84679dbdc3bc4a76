"""Make an observed loop, run one, or turn an existing loop into one."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from obsloop.base.settings import Settings
from obsloop.hotpath import backend
from obsloop.loop.observation import observe
from obsloop.probes.network import servers

_T = TypeVar("_T")

if not backend.lacking or TYPE_CHECKING:
    from obsloop.loop.loop import Loop
else:
    from obsloop.loop.fallback import Loop

    logging.getLogger("obsloop").warning(
        "this interpreter's asyncio is not known to this version of obsloop (%s): timing through public methods only,"
        " which costs more and sees less. A newer obsloop may know it.",
        "; ".join(backend.lacking[:3]),
    )


__all__ = ["InstrumentError", "Loop", "instrument", "new_event_loop", "run"]


class InstrumentError(TypeError):
    """A loop cannot be observed in place. The message says why and what to do."""


def new_event_loop(settings: Settings | None = None) -> Loop:
    """Return a new observed loop: the ``loop_factory`` for ``asyncio.run``, ``asyncio.Runner`` and servers.

    ``settings`` default to the ``OBSLOOP_*`` variables; a bad one is logged, and its default is used.
    """
    return Loop(settings=settings)


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None, settings: Settings | None = None) -> _T:
    """Run a coroutine on a new observed loop, like ``asyncio.run``."""
    with asyncio.Runner(debug=debug, loop_factory=lambda: new_event_loop(settings)) as runner:
        return runner.run(main)


def instrument(loop: asyncio.AbstractEventLoop | None = None, settings: Settings | None = None) -> Loop:
    """Turn ``loop`` (by default the running one) into an observed loop, in place, and return it.

    Its tasks and callbacks go on, and are timed from the next iteration. Handles from before are timed too, under kind
    ``other`` if theirs is not known. A loop that is observed already is left as it is. A subclass of
    ``asyncio.SelectorEventLoop`` keeps its own methods. A uvloop loop stays one, and fewer metrics are measured. Any
    other class raises ``InstrumentError``.
    """
    if loop is None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InstrumentError(
                "no loop is running in this thread: call obsloop.instrument() from a coroutine or a callback,"
                " or give it the loop"
            ) from None
    if isinstance(loop, Loop):
        return loop
    cls = type(loop)
    name = f"{cls.__module__}.{cls.__qualname__}"
    instead = "start the program with loop_factory=obsloop.new_event_loop, or under `obsloop run`"
    uvloop: Any = sys.modules.get("uvloop")
    if uvloop is not None and isinstance(loop, uvloop.Loop):
        from obsloop.loop import kept_uvloop  # noqa: PLC0415  (it needs uvloop)

        return cast(Loop, kept_uvloop.observe(loop, settings))
    if backend.lacking:
        raise InstrumentError(f"on this interpreter a loop that already exists cannot be observed: {instead}")
    if not isinstance(loop, asyncio.SelectorEventLoop):
        raise InstrumentError(
            f"cannot observe a loop of class {name}: expected asyncio.SelectorEventLoop or a subclass of it; {instead}"
        )
    observed = observed_class(cls)
    observe(loop, settings or Settings.from_env(strict=False))
    backend.adopt(loop, observed)
    servers.adopt(loop)
    return cast(Loop, loop)


_OBSERVED = "_obsloop_observed"
"""The attribute in which a loop class of the program keeps its observed class, so that both live equally long."""


def observed_class(cls: type[asyncio.AbstractEventLoop]) -> type[Loop]:
    """Return the class that a loop of ``cls`` becomes: the program's methods first, then obsloop's, then stock ones."""
    if cls.__mro__[0] is asyncio.SelectorEventLoop or cls in Loop.__mro__:
        return Loop
    observed: type[Loop] | None = vars(cls).get(_OBSERVED)  # not ``getattr``, which finds that of a base
    if observed is None:
        bases: tuple[Any, ...] = (cls, Loop)
        observed = cast(
            "type[Loop]", type(cls.__name__, bases, {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
        )
        with suppress(Exception):  # if a metaclass refuses, each loop gets a new class
            setattr(cls, _OBSERVED, observed)
    return observed
