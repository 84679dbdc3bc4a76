"""Which core times the loop: chosen once, when obsloop is imported. Both behave the same and pass every test.

The compiled core, ``_hotc``, is there where the package was built with a compiler. ``OBSLOOP_PURE=1`` switches it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from obsloop import _cells, _clock, _hot

compiled: Any = None
if not os.environ.get("OBSLOOP_PURE"):
    try:
        from obsloop import _hotc as compiled  # type: ignore[attr-defined,no-redef,unused-ignore]
    except ImportError:  # built without a compiler
        compiled = None

_chosen: Any = compiled or _hot

kind = "compiled" if compiled else "pure"
Handle: Any = _chosen.Handle
METHODS: dict[str, Any] = _chosen.METHODS
run_once: Any = METHODS["_run_once"]
new_cells: Callable[[], _cells.Cells] = compiled.Cells if compiled else _cells.Cells


def forget() -> None:
    """A loop is being made or closed: the compiled core must not take a new loop for an old one at its address."""
    if compiled:
        compiled.forget()


def adopt(loop: Any, fields: Mapping[str, Any]) -> None:
    """``loop``, whose class has just become an observed one, had these ``fields`` as its own until now."""
    if compiled:
        compiled.adopt(loop, fields)


def set_clock(monotonic_ns: Callable[[], int]) -> None:
    """Another clock for the whole process, for tests."""
    _clock.monotonic_ns = _hot.monotonic_ns = monotonic_ns
    if compiled:
        compiled.set_clock(monotonic_ns)
