"""What one loop carries of ours: its settings, the counters it writes, and the marks of handles that are not ours.

``Observed`` is what every kind of observed loop has in common beside its timing.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from obsloop import _core, _ledger, service
from obsloop._cells import OTHER
from obsloop._private import SelectorEventLoop
from obsloop._settings import Settings, tidy_name
from obsloop.probes import gc as gc_probe

if TYPE_CHECKING:
    from obsloop._cells import Cells
    from obsloop._snapshot import Snapshot


class Observation:
    """Held by the loop as ``_obsloop``: one attribute, since with a few more a loop's look-ups would slow down."""

    __slots__ = ("cells", "foreign", "iterating", "ledger", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cells: Cells | None = None
        self.ledger: _ledger.Ledger | None = None
        self.iterating = False
        """Whether ``run_once`` is called by our ``run_forever`` and may go on until the loop stops."""
        self.foreign: dict[int, tuple[int, int]] = {}
        """``id`` of a ready handle that has no room for marks (asyncio's own class) -> its kind and ready time."""

    def lease(self, loop: asyncio.AbstractEventLoop) -> Cells:
        """The counters of this loop, from the ledger of its name.

        The name is settled now, not when the loop is made: many programs make a loop in one thread and run it in
        another.
        """
        if self.cells is None:
            self.ledger, self.cells = _ledger.lease(self._name(), loop)
        return self.cells

    def snapshot(self, loop: asyncio.AbstractEventLoop) -> Snapshot:
        """The figures of this loop's name, which is settled now if the loop has not run yet."""
        if self.ledger is None:
            self.lease(loop)
        assert self.ledger is not None  # noqa: S101 - lease() has just set it
        return self.ledger.snapshot()

    def _name(self) -> str:
        thread = threading.current_thread()
        return self.settings.name or ("main" if thread is threading.main_thread() else tidy_name(thread.name))

    def release(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop is closed: its counters go back to the ledger."""
        if self.ledger is not None:
            self.ledger.release(loop)
        self.cells = None
        self.foreign.clear()

    def stamp(self, handle: asyncio.Handle, kind: int, ready_ns: int) -> None:
        """Note a foreign handle's kind and ready time; ``unstamp`` takes it away again when the handle runs."""
        self.foreign[id(handle)] = (kind, ready_ns)

    def unstamp(self, handle: Any, default_ns: int) -> tuple[int, int]:
        """Kind and ready time of a handle of any class; of an unknown one, ``OTHER`` and ``default_ns``."""
        marks = self.foreign.pop(id(handle), None)
        if marks is not None:
            return marks
        try:
            return handle._kind, handle._ready_ns
        except AttributeError:
            return OTHER, default_ns


class Observed(SelectorEventLoop):
    """The part of an observed loop that does not run per callback."""

    _obsloop: Observation

    def close(self) -> None:
        """Close the loop, as on the stock loop. Its figures stay, under its name."""
        super().close()
        _core.forget()
        self._obsloop.release(self)

    def snapshot(self) -> Snapshot:
        """The figures of this loop's name, at this moment; may be called from any thread."""
        return self._obsloop.snapshot(self)


def observe(loop: Any, settings: Settings) -> None:
    """Give ``loop`` what it carries of ours; and start the service, when one is asked for."""
    loop._obsloop = Observation(settings)
    gc_probe.install()
    if settings.address is not None:
        service.ensure(settings.address, unhealthy_after=settings.unhealthy_after)
