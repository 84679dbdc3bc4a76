"""Which core times the loop: chosen once, when obsloop is imported. Both behave the same and pass every test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from obsloop import _cells, _hot

kind = "pure"
new_cells: Callable[[], _cells.Cells] = _cells.Cells
Handle: Any = _hot.Handle
METHODS: dict[str, Any] = _hot.METHODS
run_once: Any = METHODS["_run_once"]
