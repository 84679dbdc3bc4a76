"""One reading of the observed processes, from this machine or from a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from obsloop.top.shapes import Entry

TICK_SECONDS = 0.5
"""The pause between two readings."""
BLOCKED_SECONDS = 0.1
"""A loop that is in one callback for so long is shown as blocked now."""


class SourceError(Exception):
    """Nothing can be read. The message says why and what to do."""


@dataclass(slots=True)
class Worker:
    """One process at one moment, by its heartbeat. Loops and reports of the others are in its group."""

    number: int | None
    """Its slot; None for a process that is in no group."""
    process: int
    status: str = "ok"
    """`ok`; `blocked`; `stuck`: it is silent; `stopped`: by a signal; `late`: it did not answer in time."""
    silent: float = 0.0
    """Seconds since it last said anything, if that is too long ago."""
    loops: dict[str, float] = field(default_factory=dict[str, float])
    """Its loops, and for how many seconds each has been in its present callback: from the heartbeat."""
    blocked_by: list[Entry] = field(default_factory=list[Entry])
    """Function, file and cause of each block that lasts: from the heartbeat."""
    answered: bool = True
    gauges: dict[str, tuple[int | None, int | None]] = field(default_factory=dict[str, tuple[int | None, int | None]])
    """Of one that did not answer: by loop, how many tasks and queued jobs it had when it last published them."""


@dataclass(slots=True)
class Group:
    """The processes that answer as one."""

    name: str
    label: str
    """The name for people: with the program, if that is known."""
    workers: list[Worker]
    overview: Entry
    """As of `shapes.overview`: all entries name their worker, but culprits are added up."""
    tasks: Entry | None = None
    """As of `shapes.tasks`; None if it was not asked for."""


@dataclass(slots=True)
class Reading:
    """All groups at one moment."""

    groups: list[Group]
    at: float
    """Unix time."""
    note: str = ""
    """How many groups were left out; or what went wrong, and the groups are of the last reading that succeeded."""


class Source(Protocol):
    """Where readings come from. One thread calls it."""

    title: str

    def read(self, *, tasks: bool = False) -> Reading:
        """Return the present state, with the tasks if they are asked for. It takes a second or two at most."""
        ...
