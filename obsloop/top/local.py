"""Read the groups of this machine: heartbeats, published metrics, and what processes answer on their private sockets.

All of them are asked at once, and those that do not answer in time are left out. So one that is stuck costs the others
nothing. It is shown by its heartbeat, and by the metrics that it published last.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from itertools import islice
from typing import Any

from obsloop.base import clock
from obsloop.group import ask, health, published, slots
from obsloop.service import merging
from obsloop.top import groups, shapes
from obsloop.top.shapes import Entry
from obsloop.top.source import BLOCKED_SECONDS, Group, Reading, SourceError, Worker
from obsloop.top.target import Target

ASK_SECONDS = 0.4
"""How long all processes together have to answer."""
FIND_SECONDS = 2.0
"""The pause between two searches for new groups."""
LATE_NS = 1_200_000_000
"""A process that does not answer and has not written its heartbeat for so long is shown as late."""

_Key = tuple[str, int]
"""A group's folder and a slot's number."""


class Local:
    """The groups of this machine that are asked for."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._folders: list[groups.Folder] = []
        self._left_out = 0
        self._labels: dict[str, str] = {}
        self._found_at = -FIND_SECONDS
        self.title = "this machine"

    def read(self, *, tasks: bool = False) -> Reading:
        """Return the present state."""
        self._find()
        beats = self._beats()
        known = {key: _worker(*key, beat) for key, beat in beats.items()}
        asked = {key: slots.path_of(*key, "sock") for key, worker in known.items() if worker.status != "stuck"}
        overviews = {key: shapes.overview(raw) for key, raw in _ask(asked, "/").items()}
        asked = {key: path for key, path in asked.items() if key in overviews}
        listed = {key: shapes.tasks(raw) for key, raw in _ask(asked, "/tasks").items()} if tasks else {}
        now = clock.monotonic_ns()
        for key, worker in known.items():
            _judge(worker, overviews.get(key), now - int(shapes.plain(beats[key].state.get("at_ns"))))
            if key not in overviews:
                worker.gauges = _gauges(groups.metrics(*key))
        found: list[Group] = []
        for folder in self._folders:
            keys = sorted(key for key in known if key[0] == folder.path)
            if keys:
                found.append(
                    Group(
                        folder.name,
                        self._label(folder.name),
                        [known[key] for key in keys],
                        _overview({key[1]: overviews[key] for key in keys if key in overviews}),
                        _tasks({key[1]: listed[key] for key in keys if key in listed}) if tasks else None,
                    )
                )
        more = f"groups that are not shown: {self._left_out}; see one with: obsloop top GROUP" if self._left_out else ""
        return Reading(found, time.time(), more)

    def _find(self) -> None:
        """Find the groups' folders, now and then."""
        now = clock.seconds()
        if now - self._found_at >= FIND_SECONDS:
            self._found_at = now
            target = self._target
            meant = (each for each in groups.found() if target.has(*each) and groups.is_alive(each.path))
            self._folders = list(islice(meant, groups.MAX_GROUPS))
            self._left_out = sum(1 for _ in meant)
            if target.group and not self._folders:
                self._folders = self._outside()

    def _outside(self) -> list[groups.Folder]:
        """Return a group whose folder has a place of its own, chosen with `OBSLOOP_GROUP=/PATH`."""
        path = self._target.group
        return [groups.Folder(path, path)] if path.startswith("/") and groups.is_private(path) else []

    def _label(self, name: str) -> str:
        if name not in self._labels:
            if len(self._labels) > groups.MAX_GROUPS:
                self._labels.clear()
            self._labels[name] = groups.label(name)
        return self._labels[name]

    def _beats(self) -> dict[_Key, slots.Beat]:
        """Return the heartbeats of all living processes that are asked for."""
        found: dict[_Key, slots.Beat] = {}
        process = self._target.process
        for folder in self._folders:
            for number in slots.numbers(folder.path):
                beat = slots.read(folder.path, number)
                is_meant = not process or beat.state.get("process") == process or self._target.is_run(folder.name)
                if beat.alive and is_meant:
                    found[folder.path, number] = beat
        return found


def missing(target: Target) -> SourceError:
    """Return what to say if no process is found."""
    what = "no observed process"
    if target.process:
        what = f"process {target.process} is not observed, or is not of this user, or serves no address"
    elif target.group:
        what = f"no group {target.group!r} with a living process"
    return SourceError(
        f"{what}. Start a program with `obsloop run`, or give it an address with OBSLOOP_ADDRESS; obsloop top "
        f"finds it in {', '.join(groups.places())}. For a service elsewhere: obsloop top http://HOST:PORT"
    )


def _worker(path: str, number: int, beat: slots.Beat) -> Worker:
    """Return what a heartbeat says."""
    del path
    state = health.of(beat.state)
    if state is None:
        return Worker(number, shapes.whole(beat.state.get("process")), "ok")
    return Worker(
        number,
        state.process,
        "stuck" if state.silent_ns else "ok",
        state.silent_ns / 1e9,
        {shapes.text(name): ns / 1e9 for name, ns in state.loops.items()},
        [_blocked_by(each) for each in state.blocked_by[: health.MAX_LOOPS]],
    )


def _blocked_by(raw: Any) -> Entry:
    found = shapes.mapping(raw)
    file, line = shapes.text(found.get("file")), shapes.whole(found.get("line"))
    return {
        "loop": shapes.text(found.get("loop")),
        "function": shapes.text(found.get("function")),
        "file": f"{file}:{line}" if file else "",
        "cause": shapes.text(found.get("cause")),
    }


def _judge(worker: Worker, overview: Entry | None, silent_ns: int) -> None:
    """Say how a process is, by its answer and its silence."""
    worker.answered = overview is not None
    if overview is None:
        if groups.is_stopped(worker.process):
            worker.status, worker.silent = "stopped", max(worker.silent, silent_ns / 1e9)
        elif worker.status != "stuck":
            worker.status = "late"
            if silent_ns > LATE_NS:
                worker.silent = silent_ns / 1e9
    else:
        worker.loops = {loop["loop"]: loop["blocked_seconds"] for loop in overview["loops"] if loop["running"]}
        if any(seconds >= BLOCKED_SECONDS for seconds in worker.loops.values()):
            worker.status = "blocked"


def _ask(sockets: dict[_Key, str], target: str) -> dict[_Key, Any]:
    """Return the answers of processes, as far as they are JSON."""
    keys = list(sockets)
    found: dict[_Key, Any] = {}
    for i, body in ask.ask({i: sockets[key] for i, key in enumerate(keys)}, target, ASK_SECONDS).items():
        with suppress(ValueError, RecursionError):
            found[keys[i]] = json.loads(body)
    return found


def _gauges(found: published.Published) -> dict[str, tuple[int | None, int | None]]:
    gauges: dict[str, tuple[int | None, int | None]] = {}
    for name, part in found["loops"].items():
        data = shapes.mapping(shapes.mapping(part).get("data"))
        gauges[shapes.text(name)] = (
            _sum(data.get("asyncio.task.active")),
            _sum(data.get("asyncio.executor.queue.length")),
        )
    return gauges


def _sum(points: Any) -> int | None:
    if not isinstance(points, list):
        return None
    values: list[Any] = [point[1] for point in points if isinstance(point, list) and len(point) == 2]  # pyright: ignore
    return sum(map(shapes.whole, values))


def _overview(reports: dict[int, Entry]) -> Entry:
    """Return one overview of those of several processes."""
    for number, report in reports.items():
        _mark(report, number)
    found = reports.values()
    return {
        "loops": merging.joined(found, "loops"),
        "blocked_now": sorted(merging.joined(found, "blocked_now"), key=lambda block: -block["seconds"]),
        "culprits": merging.culprits(merging.joined(found, "culprits")),
        "executors": merging.joined(found, "executors"),
        "lints": sorted(merging.joined(found, "lints"), key=lambda lint: lint["last_seconds_ago"]),
    }


def _tasks(reports: dict[int, Entry]) -> Entry:
    """Return one listing of those of several processes."""
    for number, report in reports.items():
        _mark(report, number)
    found = reports.values()
    return {
        "tasks": sorted(merging.joined(found, "tasks"), key=lambda task: -task["age_seconds"]),
        "groups": merging.task_groups(merging.joined(found, "groups")),
        "circles": merging.joined(found, "circles"),
        "not_shown": merging.total(found, "not_shown"),
    }


def _mark(report: Entry, number: int) -> None:
    """Write the process's number into each entry."""
    for entries in report.values():
        if isinstance(entries, list):
            for each in entries:  # pyright: ignore[reportUnknownVariableType]
                each["worker"] = number
