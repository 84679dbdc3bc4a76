"""The overview: a row for each loop of each worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from obsloop.service import source, text
from obsloop.top import cells
from obsloop.top.cells import Column, Row, Table
from obsloop.top.shapes import Entry
from obsloop.top.source import BLOCKED_SECONDS, Group, Reading, Worker

_NO_STACK: dict[str, Any] = {"stack": []}

_COLUMNS = (
    Column(""),
    Column("WKR", most=12),
    Column("PID", right=True),
    Column("BLOCKED", right=True),
    Column("LAG P99", right=True),
    Column("UTIL", right=True),
    Column("ITER/S", right=True),
    Column("TASKS", right=True),
    Column("QUEUE", right=True),
    Column("NOW, OR LAST BLOCK BY", share=1),
)
ORDERS = ("worker", "blocked", "lag", "utilization", "tasks", "queue")
MAX_KNOWN = 5_000

_SAID = {
    "stuck": "STUCK {0}: silent; C code holds the GIL",
    "stopped": "STOPPED {0}: by a signal or debugger",
    "late": "NO ANSWER {0}",
}


class Overview:
    """It remembers the last state of each loop, for when its process does not answer any more."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Entry] = {}
        self._blocks: dict[tuple[object, ...], Entry] = {}

    def states(self, reading: Reading) -> list[tuple[Group, list[Entry]]]:
        """Return for each group a dictionary for each loop of each worker: what the table shows, as plain data."""
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        return [
            (group, [state for worker in group.workers for state in self._of(group, worker)])
            for group in reading.groups
        ]

    def _of(self, group: Group, worker: Worker) -> list[Entry]:
        loops = [loop for loop in group.overview["loops"] if loop["worker"] == worker.number and loop["running"]]
        if worker.answered:
            for loop in loops:
                self._known[group.name, worker.process, loop["loop"]] = loop
            return [self._state(group, worker, loop["loop"], loop) for loop in loops] or [
                self._state(group, worker, "", None)
            ]
        before = [str(key[2]) for key in self._known if key[:2] == (group.name, worker.process)]
        return [self._state(group, worker, name, None) for name in list(worker.loops) or before or [""]]

    def _state(self, group: Group, worker: Worker, name: str, loop: Entry | None) -> Entry:
        key = group.name, worker.process, name
        known = self._known.get(key)
        silent = worker.status in ("stuck", "stopped") or (worker.status == "late" and worker.silent > 0)
        blocked = max(worker.loops.get(name, 0.0), worker.silent if silent else 0.0)
        now = next(
            (b for b in group.overview["blocked_now"] if (b["worker"], b["loop"]) == (worker.number, name)), None
        )
        if loop is None and silent:
            by = next((each for each in worker.blocked_by if each["loop"] in ("", name)), None)
            before = self._blocks.get(key)
            now = {**(before or {"stack": [], "task": "", "route": ""}), **by, "seconds": blocked} if by else None
        if now is not None:
            self._blocks[key] = now
        else:
            self._blocks.pop(key, None)
        tasks, jobs = worker.gauges.get(name, (None, None))
        rates = _rates(loop, blocked if silent else 0.0)
        return {
            "group": group.name,
            "worker": worker.number,
            "process": worker.process,
            "loop": name,
            "status": worker.status if worker.status != "blocked" or blocked >= BLOCKED_SECONDS else "ok",
            "blocked_seconds": blocked,
            **rates,
            "tasks": loop["tasks"] if loop else tasks,
            "queued_jobs": loop["queued_jobs"] if loop else jobs,
            "blocked_now": now,
            "last_block": loop["last_block"] if loop else known and known["last_block"],
        }

    def table(self, reading: Reading, order: str) -> Table:
        """Return the rows, by group."""
        rows: list[Row] = []
        found = self.states(reading)
        for group, states in found:
            if len(found) > 1:
                n = len(group.workers)
                head = f"{group.label}: {n} process{'es' if n > 1 else ''}"
                rows.append(Row((group.name,), (head,), head=True, detail=[head]))
            named = len({state["loop"] for state in states}) > 1
            own = [_row(state, group, named=named) for state in states]
            if order != ORDERS[0]:
                own.sort(key=lambda row: -row.order.get(order, 0.0))
            rows += own
        empty = "No observed process yet. Start one: obsloop run python app.py"
        return Table(_COLUMNS, rows, ORDERS, empty=empty)


def _rates(loop: Entry | None, blocked: float) -> Entry:
    """Return the rates of the last ten seconds. A process that is silent has been blocked for as long."""
    if loop is None:
        passed = min(1.0, blocked / 10) if blocked else None
        return {
            "blocked_share": passed,
            "lag_p99_seconds": None,
            "utilization": None,
            "iterations_per_second": 0.0 if passed == 1.0 else None,
        }
    recent, minute = loop["windows"]["10s"], loop["windows"]["1m"]
    names = ("blocked_share", "lag_p99_seconds", "utilization", "iterations_per_second")
    return {name: minute[name] if recent[name] is None else recent[name] for name in names}


def _row(state: Entry, group: Group, *, named: bool) -> Row:
    alarm = state["status"] != "ok" and not (state["status"] == "late" and state["blocked_seconds"] <= 0)
    number = state["worker"]
    worker = "-" if number is None else str(number)
    rates: dict[str, Any] = {name: state[name] or 0.0 for name in ("blocked_share", "lag_p99_seconds", "utilization")}
    return Row(
        (group.name, state["process"], state["loop"]),
        (
            "!" if alarm else "",
            f"{worker} {state['loop']}" if named or number is None else worker,
            str(state["process"]),
            cells.share(state["blocked_share"]),
            cells.duration(state["lag_p99_seconds"]),
            cells.share(state["utilization"]),
            cells.count(state["iterations_per_second"]),
            cells.count(state["tasks"]),
            cells.count(state["queued_jobs"]),
            _words(state),
        ),
        {
            "blocked": rates["blocked_share"] + state["blocked_seconds"],
            "lag": rates["lag_p99_seconds"],
            "utilization": rates["utilization"],
            "tasks": float(state["tasks"] or 0),
            "queue": float(state["queued_jobs"] or 0),
        },
        _detail(state, group),
        alarm=alarm,
    )


def _words(state: Entry) -> str:
    """Return what blocks the loop now, or what blocked it last."""
    now, last = state["blocked_now"], state["last_block"]
    lasts = cells.duration(state["blocked_seconds"])
    if state["status"] in _SAID:
        by = f" in {cells.short(now['function'])}" if now and now["function"] else ""
        return _SAID[state["status"]].format(lasts if state["blocked_seconds"] else "yet") + by
    if now is not None or state["status"] == "blocked":
        return f"NOW {lasts} {cells.short(now['function']) if now else ''}"
    if last is None:
        return "" if state["loop"] else "no loop runs"
    return f"{cells.short(last['function'])} {cells.age(last['seconds_ago'])} ago"


def _detail(state: Entry, group: Group) -> list[str]:
    """Return lines about what blocks the loop now, with its stack; else about what blocked it last."""
    who = f"worker {state['worker']}, " if state["worker"] is not None else ""
    lines = [f"{group.label}: {who}process {state['process']}, loop {state['loop'] or '-'}"]
    now, last = state["blocked_now"], state["last_block"]
    if state["status"] in ("stuck", "stopped", "late") and state["blocked_seconds"]:
        why = {
            "stuck": "so it is stopped, or C code holds its GIL",
            "stopped": "a signal or a debugger has stopped it",
            "late": "and it does not answer",
        }[state["status"]]
        lines.append(f"BLOCKED NOW for {cells.duration(state['blocked_seconds'])}: it is silent, {why}.")
        lines.append("What is shown of it is what it published last.")
    if now is not None:
        task = f"; task {now['task']}" if now["task"] else ""
        lines.append(
            f"BLOCKED NOW for {cells.duration(now['seconds'])} by {cells.place(now)}, {text.cause(now['cause'])}{task}"
        )
        lines += _route(now)
        lines += [f"  {each}" for each in source.lines(now["stack"])]
    elif last is not None:
        lines.append(
            f"Last block, {cells.age(last['seconds_ago'])} ago, {cells.duration(last['seconds'])}: "
            f"{cells.place(last)}, {text.cause(last['cause'])}"
        )
        lines += _route(last)
        same: Iterator[dict[str, Any]] = (
            c for c in group.overview["culprits"] if (c["loop"], c["function"]) == (state["loop"], last["function"])
        )
        lines += [f"  {each}" for each in source.lines(next(same, _NO_STACK)["stack"])]
    elif state["status"] == "ok":
        lines.append("Nothing has blocked it for 0.1 s or more." if state["loop"] else "No observed loop runs in it.")
    return lines


def _route(block: Entry) -> list[str]:
    return [f"In the route {block['route']}"] if block["route"] else []
