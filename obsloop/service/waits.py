"""The parts of /tasks that say who waits for whom: circles, locks with their waiters, the tree of tasks, cancellations.

obsloop/tasks/graph.py finds them. Only kinds, places, counts and names of tasks are served.
"""

from collections.abc import Collection, Sequence
from html import escape
from typing import Any

from obsloop.base import clock, gc_pause
from obsloop.service import merging, source, text, workers
from obsloop.service.pages import clean, moment, place, table
from obsloop.tasks import tracking
from obsloop.tasks.describing import TaskInfo
from obsloop.tasks.graph import LockInfo, Waits
from obsloop.tasks.tracking import Cancellation

MAX_LOCKS = 100
MAX_HOLDERS = 5
MAX_CIRCLE = 10
"""So many tasks of a circle are named."""
MAX_CANCELLATIONS = 100
MAX_LINES = 300
"""Of the tree."""
MAX_DEPTH = 30

_Report = dict[str, Any]
_Key = tuple[int | None, int]
_Line = tuple[int, _Report, int, str]
"""A line of the tree: its depth, a task, how many tasks like it, and a remark."""


def report(tasks: Sequence[TaskInfo], found: Waits) -> _Report:
    """Return how these tasks wait for each other, for JSON."""
    kinds = tracking.cancellations()
    return {
        "circles": [_circle(circle, tasks) for circle in found.circles],
        "circles_left_out": found.circles_left_out,
        "locks": [_lock(lock, tasks) for lock in gc_pause.breathing(found.locks[:MAX_LOCKS])],
        "locks_left_out": max(0, len(found.locks) - MAX_LOCKS),
        "cancellations": [
            {
                "loop": None if kind.loop_name is None else clean(kind.loop_name),
                "coroutine": clean(kind.coroutine),
                "at": place(*kind.place[:2]),
                "in": clean(kind.place[2]),
                "via": kind.via,
                "count": kind.count,
                "last_task": clean(kind.last_task),
                "last_by": None if kind.last_by is None else clean(kind.last_by),
                "last_through": None if kind.last_through is None else clean(kind.last_through),
                "last_seen": moment(clock.epoch(kind.last_ns)),
            }
            for kind in kinds[:MAX_CANCELLATIONS]
        ],
        "cancellations_left_out": max(0, len(kinds) - MAX_CANCELLATIONS),
    }


def merged(found: Collection[_Report]) -> _Report:
    """Return this part of one report, made of those of several workers."""
    locks = sorted(merging.joined(found, "locks"), key=lambda lock: (-(lock["longest_seconds"] or 0), -lock["waiters"]))
    kinds = sorted(merging.joined(found, "cancellations"), key=lambda kind: kind["last_seen"] or "", reverse=True)
    return {
        "circles": merging.joined(found, "circles"),
        "circles_left_out": merging.total(found, "circles_left_out"),
        "locks": locks[:MAX_LOCKS],
        "locks_left_out": merging.total(found, "locks_left_out") + max(0, len(locks) - MAX_LOCKS),
        "cancellations": kinds[:MAX_CANCELLATIONS],
        "cancellations_left_out": merging.total(found, "cancellations_left_out")
        + max(0, len(kinds) - MAX_CANCELLATIONS),
    }


def cancellation(found: Cancellation) -> _Report:
    """Return who cancelled a task, for JSON."""
    return {
        "at": place(*found.place[:2]),
        "in": clean(found.place[2]),
        "by": None if found.by is None else clean(found.by),
        "via": found.via,
        "through": None if found.through is None else clean(found.through),
        "seconds_ago": max(0, clock.REAL() - found.at_ns) / 1e9,
    }


def kind(task: TaskInfo) -> str:
    """Return for what kind of thing a task waits, without the names and numbers that differ from task to task."""
    words = task.waiting_on or task.waits_for or ""
    words = words.partition(",")[0].partition(":")[0]
    return next((known for known in _KINDS if words.startswith(known)), words)


_KINDS = ("task", "shielded task", "executor job", "data", "buffered data", "end of process")


def circles(report: _Report) -> list[str]:
    """Return a sentence about each circle of tasks that wait for each other."""
    found = [
        f"These tasks wait for each other and cannot go on ({workers.label(circle)}): {circle['text']}."
        for circle in report["circles"]
    ]
    return [*found, f"And {n} more such circles."] if (n := report["circles_left_out"]) else found


def origin(task: _Report) -> str:
    """Return who created a task and who cancelled it, as far as that is known."""
    parts: list[str] = []
    if task["created_at"]:
        by = f" by {task['created_by']}" if task["created_by"] else ""
        parts.append(f"created at {task['created_at']} in {task['created_in']}{by}")
    found = task["cancelled"]
    if found:
        parts.append(f"cancelled {text.ago(found['seconds_ago'])} {_whence(found, found['by'], found['through'])}")
    return "; ".join(parts)


def locks_html(report: _Report) -> str:
    """Return the locks, queues and events for which tasks wait, as HTML; empty without any."""
    if not report["locks"]:
        return ""
    head = ("what tasks share, and where they wait", "waiters", "longest", "held by", "state", "loop")
    rows = [
        (
            f"<b>{escape(lock['what'])}</b> {escape(_kind(lock))}{escape(_made(lock))}<br>"
            + "<br>".join(escape(line) for line in _places(lock)),
            str(lock["waiters"]),
            escape(_longest(lock)),
            escape(_holders(lock)),
            escape(lock["detail"]),
            escape(workers.label(lock)),
        )
        for lock in gc_pause.breathing(report["locks"])
    ]
    more = f"<p>And {report['locks_left_out']} more.</p>" if report["locks_left_out"] else ""
    return f"<h2>Locks, queues and events with waiters</h2>\n{table(head, rows, numbers=(1, 2))}{more}"


def locks_text(report: _Report) -> list[str]:
    """Return the same as lines of text."""
    if not report["locks"]:
        return []
    head = ("waiters", "longest", "what", "held by", "where they wait")
    rows = [
        (
            str(lock["waiters"]),
            _longest(lock),
            lock["what"] + _worker(0, lock),
            _holders(lock),
            (_places(lock) or [""])[0],
        )
        for lock in report["locks"]
    ]
    more = [f"and {report['locks_left_out']} more"] if report["locks_left_out"] else []
    return ["Locks, queues and events with waiters", *text.table(head, rows, right="01", ends="4"), *more]


def tree_html(report: _Report) -> str:
    """Return who awaits whom as HTML; empty if no task awaits another."""
    lines, left_out = _tree(report)
    if not lines:
        return ""
    parts: list[str] = []
    depth = -1
    for level, task, count, remark in lines:
        parts.append("<ul>" * (level - depth) if level > depth else "</li>" + "</ul></li>" * (depth - level))
        depth = level
        where = _short(task["own_at"] or task["at"])
        parts.append(
            f"<li><b>{escape(task['name'])}</b>{f' and {count - 1} more' if count > 1 else ''} "
            f"{escape(task['coroutine'])} <span class=dim>{escape(_doing(task))}{escape(remark)}</span>"
            f"{escape(_worker(level, task))} "
            f"<small>{escape(where)}</small>"
        )
    parts.append("</li></ul>" * (depth + 1))
    more = f"<p>And {left_out} more tasks.</p>" if left_out else ""
    if report["awaited_not_listed"]:
        more += f"<p>{report['awaited_not_listed']} awaited tasks are not listed.</p>"
    return f"<h2>Who awaits whom</h2>\n<div class=tree>{''.join(parts)}</div>{more}"


def tree_text(report: _Report) -> list[str]:
    """Return the same as lines of text."""
    lines, left_out = _tree(report)
    if not lines:
        return []
    shown = [
        text.cut(
            f"{'  ' * level}{task['name']}{f' and {count - 1} more' if count > 1 else ''}: "
            f"{task['coroutine']} {_doing(task)}{remark}{_worker(level, task)}"
        )
        for level, task, count, remark in lines
    ]
    more = [f"and {left_out} more tasks"] if left_out else []
    if report["awaited_not_listed"]:
        more.append(f"{report['awaited_not_listed']} awaited tasks are not listed")
    return ["Who awaits whom", *shown, *more]


def cancellations_html(report: _Report) -> str:
    """Return who cancels tasks, as HTML; empty if no loop tracks that, or nothing was cancelled."""
    if not report["cancellations"]:
        return ""
    head = ("cancelled, and from where", "times", "last task", "last seen (UTC)", "loop")
    rows = [
        (
            f"<b>{escape(kind['coroutine'])}</b><br>{escape(_whence(kind, kind['last_by'], kind['last_through']))}",
            str(kind["count"]),
            escape(kind["last_task"]),
            escape((kind["last_seen"] or "")[11:19]),
            escape(workers.label(kind)),
        )
        for kind in report["cancellations"]
    ]
    more = f"<p>And {report['cancellations_left_out']} more.</p>" if report["cancellations_left_out"] else ""
    return f"<h2>Who cancels tasks</h2>\n{table(head, rows, numbers=(1,))}{more}"


def cancellations_text(report: _Report) -> list[str]:
    """Return the same as lines of text."""
    if not report["cancellations"]:
        return []
    head = ("times", "cancelled", "from where")
    rows = [
        (str(kind["count"]), kind["coroutine"], _whence(kind, kind["last_by"], kind["last_through"]))
        for kind in report["cancellations"]
    ]
    more = [f"and {report['cancellations_left_out']} more"] if report["cancellations_left_out"] else []
    return ["Who cancels tasks", *text.table(head, rows, right="0"), *more]


def _circle(circle: Sequence[int], tasks: Sequence[TaskInfo]) -> _Report:
    names = [clean(tasks[i].name) for i in circle]
    steps = [
        f"{clean(tasks[i].name)} waits for {clean(tasks[i].waiting_on or '')}"
        + (f", held by {clean(tasks[other].name)}" if (tasks[i].waiting_on or "").startswith("Lock") else "")
        for i, other in zip(circle, [*circle[1:], circle[0]], strict=True)
    ]
    more = f"; and {len(steps) - MAX_CIRCLE} more" if len(steps) > MAX_CIRCLE else ""
    loop_name = tasks[circle[0]].loop_name
    return {
        "loop": None if loop_name is None else clean(loop_name),
        "tasks": list(circle),
        "names": names,
        "text": f"{'; '.join(steps[:MAX_CIRCLE])}{more}",
    }


def _lock(lock: LockInfo, tasks: Sequence[TaskInfo]) -> _Report:
    holders = [tasks[i] for i in lock.holders[:MAX_HOLDERS]]
    return {
        "loop": None if lock.loop_name is None else clean(lock.loop_name),
        "what": lock.what,
        "class": clean(lock.class_name),
        "waiters": lock.waiters,
        "tasks": list(lock.tasks),
        "detail": lock.detail,
        "longest_seconds": lock.longest,
        "longest_task": None if lock.longest_task is None else clean(tasks[lock.longest_task].name),
        "places": [{"at": place(*at[:2]), "in": clean(at[2]), "tasks": n} for at, n in lock.places],
        "places_left_out": lock.places_left_out,
        "held_by": [
            {"task": clean(task.name), "at": place(task.place_filename, task.place_lineno)} for task in holders
        ],
        "held_by_left_out": max(0, len(lock.holders) - MAX_HOLDERS),
        "made_at": None if lock.made_at is None else place(*lock.made_at[:2]),
        "made_in": None if lock.made_at is None else clean(lock.made_at[2]),
    }


def _tree(report: _Report) -> tuple[list[_Line], int]:
    """Return the lines of the tree, and how many tasks were left out. Tasks that await no other are not roots."""
    tasks: dict[_Key, _Report] = {(task.get("worker"), task["id"]): task for task in report["tasks"]}
    inner: dict[_Key, list[_Key]] = {
        key: [(key[0], i) for i in task["awaits"] if (key[0], i) in tasks] for key, task in tasks.items()
    }
    awaited = {other for others in inner.values() for other in others}
    lines: list[_Line] = []
    done: set[_Key] = set()
    left_out = 0
    # First those that no task awaits, then those of circles.
    roots = [*(key for key in tasks if inner[key] and key not in awaited), *(key for key in tasks if inner[key])]
    for root in roots:
        if root in done:
            continue
        rest: list[tuple[int, _Key, int]] = [(0, root, 1)]
        while rest:
            level, key, count = rest.pop()
            again = key in done and bool(inner[key])
            done.add(key)
            if len(lines) >= MAX_LINES:
                left_out += count
                continue
            lines.append((level, tasks[key], count, ", shown above" if again else ""))
            if again or level >= MAX_DEPTH:
                continue
            rest += reversed([(level + 1, *child) for child in _folded(inner[key], tasks, inner, done)])
    return lines, left_out


def _folded(
    keys: Sequence[_Key], tasks: dict[_Key, _Report], inner: dict[_Key, list[_Key]], done: set[_Key]
) -> list[tuple[_Key, int]]:
    """Return one of each kind of tasks that await no other, with their number; and each that awaits others."""
    found: dict[Any, tuple[_Key, int]] = {}
    for key in keys:
        task = tasks[key]
        kind = key if inner[key] else (task["coroutine"], task["own_at"] or task["at"], task["at"], task["state"])
        first, count = found.get(kind, (key, 0))
        found[kind] = first, count + 1
        if not inner[key]:
            done.add(key)
    return list(found.values())


def _worker(level: int, entry: _Report) -> str:
    """Return the worker of an entry of several workers. In a tree it is said once, at the root."""
    return f", worker {entry['worker']}" if "worker" in entry and not level else ""


def _doing(task: _Report) -> str:
    if not task["waits_for"]:
        return str(task["state"])
    waited = task["waiting_seconds"]
    since = f" for {text.seconds(waited)}" if waited else ""
    return f"waits{since}: {task['waiting_on'] or task['waits_for']}"


def _kind(lock: _Report) -> str:
    """Return the object's class, if it is not asyncio's own."""
    return "" if lock["class"].startswith("asyncio.") else str(lock["class"])


def _made(lock: _Report) -> str:
    return f" made at {_short(lock['made_at'])} in {lock['made_in']}" if lock["made_at"] else ""


def _places(lock: _Report) -> list[str]:
    found = [f"{_short(entry['at'])} in {entry['in']} ({entry['tasks']})" for entry in lock["places"]]
    return [*found, f"and {n} more lines"] if (n := lock["places_left_out"]) else found


def _longest(lock: _Report) -> str:
    return "" if lock["longest_seconds"] is None else text.seconds(lock["longest_seconds"])


def _holders(lock: _Report) -> str:
    found = ", ".join(each["task"] + (f" at {_short(each['at'])}" if each["at"] else "") for each in lock["held_by"])
    return f"{found} and {n} more" if (n := lock["held_by_left_out"]) else found


def _short(at: str | None) -> str:
    """Return a place of the report as people read it: `shop/views.py:31`."""
    filename, _, lineno = (at or "").rpartition(":")
    return source.where(filename, int(lineno)) if lineno.isdigit() else filename


def _whence(found: _Report, by: str | None, through: str | None) -> str:
    """Say from where a cancellation came."""
    parts: list[str] = [f"from {_short(found['at'])} in {found['in']}" if found["at"] else f"from {found['in']}"]
    parts += [f"by {by}"] if by else []
    parts += [f"via {found['via']}"] if found["via"] and found["via"] != found["in"] else []
    parts += [f"with {through}, which awaited it"] if through else []
    return ", ".join(parts)
