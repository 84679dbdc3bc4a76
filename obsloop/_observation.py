"""What one loop carries of ours: its settings, the counters it writes, and the marks of handles that are not ours."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from obsloop import _hot, _ledger

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle

    from obsloop._cells import Cells
    from obsloop._settings import Settings


class Observation:
    """Held by the loop as ``_obs``: one attribute, since a loop's instance has few to spare before look-ups slow down."""

    __slots__ = ("cells", "foreign", "iterating", "ledger", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cells: Cells | None = None
        self.ledger: _ledger.Ledger | None = None
        self.iterating = False
        """Whether ``run_once`` is called by our ``run_forever`` and may go on until the loop stops."""
        self.foreign: dict[int, tuple[int, int]] = {}
        """``id`` of a ready handle that has no room for marks (asyncio's own class) -> its kind and ready time."""

    def lease(self, loop: AbstractEventLoop) -> Cells:
        """The counters of this loop, from the ledger of its name.

        The name is settled now and not when the loop is made: many programs make a loop in one thread and run it in another.
        """
        if self.cells is None:
            thread = threading.current_thread()
            name = self.settings.name or ("main" if thread is threading.main_thread() else thread.name)
            self.ledger, self.cells = _ledger.lease(name, loop)
        return self.cells

    def release(self, loop: AbstractEventLoop) -> None:
        """The loop is closed: its counters go back to the ledger."""
        if self.ledger is not None:
            self.ledger.release(loop)
        self.foreign.clear()

    def stamp(self, handle: Handle, kind: int, ready_ns: int) -> None:
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
            return _hot.OTHER, default_ns
