"""Slots: a small number for each process of a group, which its successor gets when it is gone.

A process holds a lock on its slot's file as long as it lives. The system drops the lock when the process ends, however
it ends. In the same file is the process's heartbeat: when it last moved on, and since when its loops are blocked.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from binascii import crc32
from contextlib import suppress
from typing import Any, NamedTuple

from obsloop.base import clock
from obsloop.base.fork import reset_in_child

MAX_SLOTS = 64
_ROOM = 4096
"""Bytes of a heartbeat, always written in full: so a full disk does not matter after the first one."""
_SHORT = ("process", "at_ns", "unhealthy_after_ns", "blocked_ns")
"""What is kept of a heartbeat that has no room: numbers only."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK_SECONDS = 2.0

_held: set[int] = set()
"""The descriptors of this process's slots. A forked child closes its copies, or they would keep the lock."""


class Slot:
    """This process's place in its group."""

    def __init__(self, folder: str, number: int, descriptor: int) -> None:
        self.folder = folder
        self.number = number
        self._descriptor = descriptor
        self._process = os.getpid()
        self._writing = threading.Lock()

    def beat(self, state: dict[str, Any]) -> None:
        """Write the heartbeat; nothing after `leave`. Raise OSError if that fails."""
        if self._process == os.getpid():
            text = json.dumps(state, separators=(",", ":"))
            if len(text) > _ROOM - 32:
                text = json.dumps({name: state[name] for name in state if name in _SHORT}, separators=(",", ":"))
            data = text.encode()
            # After `leave` the descriptor's number may be that of a file of the program.
            with self._writing:
                if self._descriptor in _held:
                    os.pwrite(self._descriptor, b"%08x %s" % (crc32(data), data.ljust(_ROOM - 10)) + b"\n", 0)

    def leave(self) -> None:
        """Give the slot back. Its files stay for the successor."""
        with self._writing:
            if self._descriptor in _held:
                _held.discard(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1


class Beat(NamedTuple):
    """What another process said last of itself."""

    alive: bool
    """Whether the process still exists."""
    state: dict[str, Any]
    """Empty if there is none, or if it cannot be read."""


def take(folder: str) -> Slot | None:
    """Take the lowest free slot; None if there are `MAX_SLOTS` processes. Raise OSError if the folder is unusable."""
    for number in range(MAX_SLOTS):
        descriptor = os.open(path_of(folder, number, "lock"), _FLAGS, 0o600)
        for pause in (0.001, 0.001, 0.0):
            if _locked(descriptor, fcntl.LOCK_EX):
                _held.add(descriptor)
                return Slot(folder, number, descriptor)
            time.sleep(pause)  # `read` may have locked a free slot for a moment
        os.close(descriptor)
    return None


def path_of(folder: str, number: int, kind: str) -> str:
    """Return the path of a slot's file."""
    return os.path.join(folder, f"{number}.{kind}")


def numbers(folder: str) -> list[int]:
    """Return the slots that are or were in use."""
    with suppress(OSError):
        names = [name.removesuffix(".lock") for name in os.listdir(folder) if name.endswith(".lock")]
        return sorted(int(name) for name in names if name.isdecimal() and int(name) < MAX_SLOTS)
    return []


def read(folder: str, number: int) -> Beat:
    """Return another process's heartbeat. Never waits and never raises."""
    alive, data = False, b""
    with suppress(OSError):
        descriptor = os.open(path_of(folder, number, "lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # A shared lock, for a moment: two readers at once must not take each other for the owner.
            alive = not _locked(descriptor, fcntl.LOCK_SH)
            for _ in range(3):
                data = os.pread(descriptor, _ROOM, 0)
                if _valid(data):
                    break
        finally:
            os.close(descriptor)
    return Beat(alive, _parsed(data))


def living(folder: str) -> list[int]:
    """Return the slots whose processes exist."""
    return [number for number in numbers(folder) if read(folder, number).alive]


class FolderLock:
    """A lock on a whole folder, for joining a group. ``with`` returns whether it was got within two seconds."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "lock")
        self._descriptor = -1

    def __enter__(self) -> bool:
        self._descriptor = os.open(self._path, _FLAGS, 0o600)
        _held.add(self._descriptor)
        end = clock.seconds() + _LOCK_SECONDS
        while not _locked(self._descriptor, fcntl.LOCK_EX):
            if clock.seconds() > end:  # the process that has it may be stopped
                return False
            time.sleep(0.005)
        return True

    def __exit__(self, *_: object) -> None:
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _valid(data: bytes) -> bool:
    return len(data) == _ROOM and data[:8] == b"%08x" % crc32(data[9:].rstrip())


def _parsed(data: bytes) -> dict[str, Any]:
    if not _valid(data):
        return {}
    try:
        found: Any = json.loads(data[9:])
    except ValueError:
        return {}
    return dict(found) if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownArgumentType]


@reset_in_child
def forked() -> None:
    """Close the child's copies of its parent's locks."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()
