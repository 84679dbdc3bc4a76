"""Find the folders of this user's groups, and the files of their processes. Nothing is made, changed or removed.

A folder is read only if it is a real directory, belongs to this user and is closed to all others.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NamedTuple

from obsloop.base.environment import RUN
from obsloop.group import folder, published, slots
from obsloop.introspect.attributes import clean

MAX_GROUPS = 100
MAX_FILE = 16 * 1024 * 1024


class Folder(NamedTuple):
    """A group's folder."""

    name: str
    path: str


def places() -> list[str]:
    """Return where folders of groups may be. A service may have another environment than this terminal."""
    user = os.geteuid()
    known = [*folder.roots(), f"/run/user/{user}/obsloop", f"/tmp/obsloop-{user}"]  # noqa: S108 - `is_private` checks
    return list(dict.fromkeys(map(os.path.realpath, known)))


def found() -> list[Folder]:
    """Return the folders that there are, by name."""
    folders: list[Folder] = []
    for place in filter(is_private, places()):
        with suppress(OSError):
            names = sorted(os.listdir(place))[: 10 * MAX_GROUPS]
            folders += [Folder(name, os.path.join(place, name)) for name in names]
    return sorted(each for each in folders if is_private(each.path))


def is_private(path: str) -> bool:
    """Return whether it is a folder of this user's alone."""
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077


def is_alive(path: str) -> bool:
    """Return whether a process of this group lives. Folders of groups that are gone stay until another group begins."""
    return any(slots.read(path, number).alive for number in slots.numbers(path))


def metrics(path: str, number: int) -> published.Published:
    """Return the metrics that a process published last; empty ones if there are none or they cannot be read."""
    with suppress(OSError):
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(slots.path_of(path, number, "json"), flags)
        with open(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return published.decode(file.read(MAX_FILE))
    return published.empty()


def is_stopped(process: int) -> bool:
    """Return whether a signal or a debugger has stopped the process, as far as the system shows it."""
    with suppress(OSError, IndexError, ValueError), open(f"/proc/{process}/stat", "rb") as file:
        return file.read(4096).rpartition(b")")[2].split()[0] in (b"T", b"t")
    return False


def label(name: str) -> str:
    """Return a group's name for people: of a group of `obsloop run`, the program and its process id."""
    if not name.startswith(RUN):
        return clean(name)
    process = name.removeprefix(RUN).partition("-")[0]
    program = _program(process) if process.isdecimal() else ""
    return clean(f"{program} ({process})" if program else name)


def _program(process: str) -> str:
    """Return the name of a process's program, without arguments, except for what a server is given as `module:app`."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = file.read(4096).decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    name = os.path.basename(words[0])
    rest = words[1:]
    if name.startswith(("python", "pypy")):
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
            rest = rest[2:] if rest[0] in ("-X", "-W") else rest[1:]
        if rest[:1] == ["-m"]:
            rest = rest[1:]
        elif rest[:1] in (["-c"], ["-"]):
            return name
        name, rest = (os.path.basename(rest[0]), rest[1:]) if rest else (name, [])
    app = next((word for word in rest if _is_app(word)), "")
    return f"{name} {app}".strip()


def _is_app(word: str) -> bool:
    module, colon, attribute = word.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
