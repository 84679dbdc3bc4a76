"""The coroutines of asyncio in which tasks wait: for what, and the object of it.

A coroutine is known by its code. If a program has replaced one of these functions, its frames are not known any more,
and a wait in it is called by its future's class.
"""

from __future__ import annotations

import asyncio
from asyncio import base_subprocess, locks, queues, selector_events, streams, taskgroups, timeouts
from collections import deque
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, NamedTuple, cast

from obsloop.base import clock
from obsloop.base.asyncio_private import private_base_events, private_futures, private_tasks
from obsloop.introspect import attributes, protocols
from obsloop.introspect.attributes import class_of, find, get, is_a

Frames = list[tuple[CodeType, list[Any]]]
"""The code of each waiting coroutine and what its frame refers to, innermost first."""

GROUP: Any = taskgroups.TaskGroup
TIMEOUT: Any = timeouts.Timeout
_HOLDABLE: tuple[Any, ...] = (locks.Lock, locks.Semaphore, locks.Condition)


def _code(owner: Any, name: str) -> CodeType | None:
    """Return the code of a function of asyncio's; None if this version does not have it."""
    return getattr(getattr(owner, name, None), "__code__", None)


def _inner_codes(owner: Any, name: str, *inner: str) -> frozenset[CodeType]:
    """Return the codes of functions that are defined within a function of asyncio's."""
    code = _code(owner, name)
    parts = () if code is None else code.co_consts
    return frozenset(part for part in parts if class_of(part) is CodeType and part.co_name in inner)


WAIT = _code(private_tasks, "_wait")
GROUP_EXIT = _code(GROUP, "_aexit") or _code(GROUP, "__aexit__")
FOR_ANOTHER = frozenset(filter(None, (_code(private_tasks, "wait_for"), _code(private_tasks, "_cancel_and_wait"))))
SHIELDS = _inner_codes(private_tasks, "shield", "_outer_done_callback")
CHAINED = _inner_codes(private_futures, "_chain_future", "_call_check_cancel")


class Waiting(NamedTuple):
    """A lock, queue, event or the like, as one waiting task shows it. It holds no object of the program's."""

    lock_id: int
    what: str
    """``Lock.acquire``, ``Queue.get`` and so on."""
    class_name: str
    waiters: int
    """How many wait in its line, as the object itself says."""
    detail: str
    made_at: tuple[str, int, str] | None
    """File, line and function that made it, if the program asked for that."""
    held_id: int
    """The ``id`` of the lock that a holder has; 0 if nothing of this kind is held."""

    @property
    def text(self) -> str:
        """What a task waits for, in words."""
        return self.what


def lock_of(frames: Frames) -> Waiting | None:
    """Return the lock, queue or event that a task with these frames waits for; None if it does not."""
    if not frames or frames[0][0] not in _LOCKS:
        return None
    what, owner, line_of = _LOCKS[frames[0][0]]
    within = frames[:1]
    for i, (code, _held) in enumerate(frames[1:4], 1):  # a queue's `join` waits for an event, a barrier for a condition
        if code in _OVER:
            what, owner, line_of = _OVER[code]
            within = frames[i : i + 2]  # with its caller: a lambda may have made `self` a cell
    lock = next((found for _code, held in within if (found := held_of(held, owner)) is not None), None)
    if lock is None:
        return None
    is_lock = is_a(lock, (locks.Lock, locks.Semaphore))
    return Waiting(
        lock_id=id(lock),
        what=what,
        class_name=attributes.class_name(class_of(lock)),
        waiters=line_of(lock),
        detail=_detail(lock),
        made_at=get(lock, MADE_AT),
        held_id=id(lock) if is_lock else 0,
    )


MADE_AT = "_obsloop_made_at"
"""The attribute that ``lock_places`` gives to each object."""


def held_lock(obj: Any) -> int:
    """Return the ``id`` of the lock that a task holds in an ``async with`` block of ``obj``; 0 if it is no lock."""
    if not is_a(obj, _HOLDABLE):
        return 0
    return id(get(obj, "_lock")) if is_a(obj, locks.Condition) else id(obj)


def held_of(held: Iterable[Any], kind: Any) -> Any:
    """Return the first object of this kind; None if there is none."""
    return next((obj for obj in held if is_a(obj, kind)), None)


def timer_of(held: Iterable[Any]) -> float | None:
    """Return when the first timer ends, by the loop's clock; None if there is no timer."""
    for obj in held:
        if find(class_of(obj), "when") is not None and find(class_of(obj), "_when") is not None:
            when: Any = get(obj, "_when")
            if when is None and class_of(obj).__module__.startswith("obsloop."):
                when = obj.when()  # a timer of the compiled core
            if class_of(when) is float or class_of(when) is int:
                return float(cast("float", when))
    return None


def text_of(code: CodeType, held: list[Any]) -> str:
    """Say what a task waits for whose innermost coroutine has this code; empty if that is not known."""
    words = _TEXTS.get(code)
    return "" if words is None else words(held)


def _length(line: Any) -> int:
    return len(line) if class_of(line) in (deque, list, set) else 0


def _line(*names: str) -> Callable[[Any], int]:
    def length(obj: Any) -> int:
        for name in names:
            obj = get(obj, name)
        return _length(obj)

    return length


def _in_barrier(barrier: Any) -> int:
    count = get(barrier, "_count")
    return count if class_of(count) is int else 0


_LOCKS: dict[CodeType | None, tuple[str, Any, Callable[[Any], int]]] = {
    _code(locks.Lock, "acquire"): ("Lock.acquire", locks.Lock, _line("_waiters")),
    _code(locks.Semaphore, "acquire"): ("Semaphore.acquire", locks.Semaphore, _line("_waiters")),
    _code(locks.Condition, "wait"): ("Condition.wait", locks.Condition, _line("_waiters")),
    _code(locks.Event, "wait"): ("Event.wait", locks.Event, _line("_waiters")),
    _code(queues.Queue, "get"): ("Queue.get", queues.Queue, _line("_getters")),
    _code(queues.Queue, "put"): ("Queue.put", queues.Queue, _line("_putters")),
}
_OVER: dict[CodeType | None, tuple[str, Any, Callable[[Any], int]]] = {
    _code(queues.Queue, "join"): ("Queue.join", queues.Queue, _line("_finished", "_waiters")),
    _code(locks.Barrier, "_wait"): ("Barrier.wait", locks.Barrier, _in_barrier),
    _code(locks.Barrier, "_block"): ("Barrier.wait", locks.Barrier, _in_barrier),
}


def _detail(lock: Any) -> str:
    """Say in what state the object is. Only numbers."""
    if is_a(lock, locks.Semaphore):
        value = get(lock, "_value")
        return f"value {value}" if class_of(value) is int else ""
    if is_a(lock, queues.Queue):
        size, most = _length(get(lock, "_queue")), get(lock, "_maxsize")
        return f"{size} items" + (f" of at most {most}" if class_of(most) is int and most > 0 else "")
    if is_a(lock, locks.Barrier):
        parties = get(lock, "_parties")
        return f"{parties} parties" if class_of(parties) is int else ""
    return ""


def _sleep(held: list[Any]) -> str:
    when = timer_of(held)
    return "sleep" if when is None else f"sleep, {max(0.0, when - clock.seconds()):.1f} s more"


def _data(held: list[Any]) -> str:
    reader = held_of(held, streams.StreamReader)
    return " ".join(filter(None, ("data", protocols.peer_of(get(reader, "_transport")))))


def _drain(held: list[Any]) -> str:
    protocol = held_of(held, streams.FlowControlMixin)
    peer = protocols.peer_of(get(protocol, "_transport")).replace("from ", "to ", 1)
    return " ".join(filter(None, ("buffered data to be sent", peer)))


def _process(held: list[Any]) -> str:
    pid = get(held_of(held, base_subprocess.BaseSubprocessTransport), "_pid")
    return f"end of process {pid}" if class_of(pid) is int else "end of a process"


def _says(words: str) -> Callable[[list[Any]], str]:
    return lambda _held: words


_LOOP: Any = selector_events.BaseSelectorEventLoop
_TEXTS: dict[CodeType | None, Callable[[list[Any]], str]] = {
    _code(asyncio, "sleep"): _sleep,
    _code(streams.StreamReader, "_wait_for_data"): _data,
    _code(streams.FlowControlMixin, "_drain_helper"): _drain,
    _code(base_subprocess.BaseSubprocessTransport, "_wait"): _process,
    _code(private_base_events.Server, "serve_forever"): _says("end of the server"),
    _code(private_base_events.Server, "wait_closed"): _says("end of the server's connections"),
    **{
        _code(_LOOP, name): _says(f"socket: {what}")
        for name, what in (
            ("sock_recv", "data"),
            ("sock_recv_into", "data"),
            ("sock_recvfrom", "data"),
            ("sock_recvfrom_into", "data"),
            ("sock_sendall", "room to send"),
            ("sock_sendto", "room to send"),
            ("sock_connect", "connection"),
            ("sock_accept", "a client"),
        )
    },
}
for _table in (_LOCKS, _OVER, _TEXTS):
    _table.pop(None, None)
