"""Take what is needed from answers of other processes, which may be of another version, or wrong, or hostile.

Each entry gets all of its fields with the right types. Texts are bounded and hold nothing that controls a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from obsloop.service.pages import clean

Entry = dict[str, Any]
MOST = 2.0**63
MAX_ENTRIES = 1_000
"""Of one list."""
MAX_NESTED = 100
"""Of a list within an entry."""


def number(value: Any) -> float | None:
    """Return a number of a sensible size; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < MOST else None  # no comparison with "not a number" is true


def plain(value: Any) -> float:
    """Return a finite number; 0.0 for anything else."""
    return number(value) or 0.0


def whole(value: Any) -> int:
    """Return a whole number; 0 for anything else."""
    return int(number(value) or 0)


def maybe_whole(value: Any) -> int | None:
    """Return a whole number; None for anything else."""
    found = number(value)
    return None if found is None else int(found)


def text(value: Any) -> str:
    """Return a text that can be shown; an empty one for anything else."""
    return clean(value) if isinstance(value, str) else ""


def truth(value: Any) -> bool:
    """Return whether it is true."""
    return value is True


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a dictionary; an empty one for anything else."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def numbers(value: Any) -> dict[str, float]:
    """Return names with numbers."""
    return {text(name): plain(each) for name, each in list(mapping(value).items())[:MAX_NESTED]}


def _listed(value: Any) -> list[Any]:
    return list(cast("Iterable[Any]", value)) if isinstance(value, list) else []


def whole_numbers(value: Any) -> list[int]:
    """Return a list of whole numbers."""
    return [whole(each) for each in _listed(value)[:MAX_NESTED]]


Fields = Mapping[str, Callable[[Any], Any]]


def entry(fields: Fields) -> Callable[[Any], Entry]:
    """Return a function that takes these fields of a dictionary."""

    def take(value: Any) -> Entry:
        raw = mapping(value)
        return {name: read(raw.get(name)) for name, read in fields.items()}

    return take


def entries(fields: Fields, most: int = MAX_ENTRIES) -> Callable[[Any], list[Entry]]:
    """Return a function that takes these fields of each dictionary of a list."""
    take = entry(fields)

    def take_all(value: Any) -> list[Entry]:
        return [take(each) for each in _listed(value)[:most]]

    return take_all


def optional(fields: Fields) -> Callable[[Any], Entry | None]:
    """Return a function that takes these fields of a dictionary; None for anything else."""
    take = entry(fields)
    return lambda value: take(value) if isinstance(value, dict) else None


_WINDOW: Fields = {
    "blocked_share": number, "lag_p99_seconds": number, "utilization": number, "iterations_per_second": number,
}  # fmt: skip
_SUM = {"seconds": plain, "blocks": whole, "worst_seconds": plain}
_STACK = {"at": text, "function": text, "own": truth, "source": text, "library_frames": whole}
_BLOCK: Fields = {"seconds": plain, "function": text, "file": text, "cause": text, "route": text}
_WHOSE: Fields = {"loop": text, "worker": maybe_whole}

LOOPS = entries(
    {
        **_WHOSE,
        "running": truth,
        "blocked_seconds": plain,
        "tasks": maybe_whole,
        "queued_jobs": maybe_whole,
        "windows": entry({name: entry(_WINDOW) for name in ("10s", "1m")}),
        "last_block": optional({**_BLOCK, "seconds_ago": plain}),
    }
)
BLOCKED_NOW = entries({**_WHOSE, **_BLOCK, "task": text, "stack": entries(_STACK, MAX_NESTED)})
CULPRITS = entries(
    {
        **_WHOSE,
        "function": text,
        "file": text,
        "seen": truth,
        "cause": text,
        "windows": entry({name: entry(_SUM) for name in ("5m", "1h", "24h")}),
        "worst_seconds": plain,
        "last_seconds_ago": plain,
        "causes": numbers,
        "lines": entries({"file": text, "source": text, **_SUM}, MAX_NESTED),
        "lines_left_out": whole,
        "stack": entries(_STACK, MAX_NESTED),
    }
)
EXECUTORS = entries(
    {
        **_WHOSE,
        "executor": text,
        "workers": text,
        "active": whole,
        "threads": maybe_whole,
        "limit": maybe_whole,
        "queued": whole,
        "longest_wait_seconds": plain,
        "held_by": entries({"name": text, "file": text, "workers": whole}, MAX_NESTED),
    }
)
LINTS = entries(
    {
        **_WHOSE,
        "lint": text,
        "name": text,
        "file": text,
        "message": text,
        "count": whole,
        "last_seconds_ago": plain,
    }
)
TASKS = entries(
    {
        **_WHOSE,
        "id": maybe_whole,
        "awaits": whole_numbers,
        "name": text,
        "coroutine": text,
        "state": text,
        "cancelling": truth,
        "waits_for": text,
        "waiting_on": text,
        "waiting_seconds": number,
        "at": text,
        "in": text,
        "own_at": text,
        "own_in": text,
        "created_at": text,
        "created_in": text,
        "age_seconds": plain,
    }
)
GROUPS = entries(
    {
        **_WHOSE,
        "coroutine": text,
        "at": text,
        "in": text,
        "source": text,
        "tasks": whole,
        "oldest_seconds": plain,
        "oldest_task": text,
        "states": numbers,
    }
)
WORKERS = entries(
    {
        "worker": whole,
        "process": whole,
        "status": text,
        "answered": truth,
        "silent_seconds": plain,
        "blocked_by": entries({"loop": text, "function": text, "file": text, "cause": text}, MAX_NESTED),
    }
)


def overview(raw: Any) -> Entry:
    """Return what is needed of the service's page `/`."""
    found = mapping(raw)
    return {
        "loops": LOOPS(found.get("loops")),
        "blocked_now": BLOCKED_NOW(found.get("blocked_now")),
        "culprits": CULPRITS(found.get("culprits")),
        "executors": EXECUTORS(found.get("executors")),
        "lints": LINTS(found.get("lints")),
    }


def tasks(raw: Any) -> Entry:
    """Return what is needed of the service's page `/tasks`."""
    found = mapping(raw)
    return {
        "tasks": TASKS(found.get("tasks")),
        "groups": GROUPS(found.get("groups")),
        "circles": entries({**_WHOSE, "text": text}, MAX_NESTED)(found.get("circles")),
        "not_shown": whole(found.get("not_shown")),
    }
