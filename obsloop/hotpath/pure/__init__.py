"""The hot path in Python, for machines without the compiled core. It is the copy to read; `compiled` has its twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from obsloop.hotpath.kinds import STEP as STEP
from obsloop.hotpath.pure import iteration, scheduling
from obsloop.hotpath.pure.create_task import create_task
from obsloop.hotpath.pure.handles import Handle as Handle
from obsloop.hotpath.pure.iteration import handle_in as handle_in, running_handle as running_handle
from obsloop.hotpath.pure.self_pipe import read_from_self, wake_once as wake_once
from obsloop.hotpath.pure.task_table import TaskTable

new_task_table = TaskTable
METHODS: dict[str, Any] = {
    "call_soon": scheduling.call_soon,
    "call_soon_threadsafe": scheduling.call_soon_threadsafe,
    "call_later": scheduling.call_later,
    "call_at": scheduling.call_at,
    "create_task": create_task,
    "_run_once": iteration.run_once,
    "_add_reader": scheduling.add_reader,
    "_add_writer": scheduling.add_writer,
    "_remove_reader": scheduling.remove_reader,
    "_remove_writer": scheduling.remove_writer,
    "_read_from_self": read_from_self,
}
"""What a loop class takes from the core."""


def set_clock(monotonic_ns: Callable[[], int]) -> None:
    """Put another clock into each module that keeps it as its own global, since that is the cheapest look-up."""
    for module in (iteration, scheduling):
        vars(module)["monotonic_ns"] = monotonic_ns
