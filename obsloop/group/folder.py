"""Find the group's folder, make it private, and remove folders of groups that are gone.

A folder is used only if it is a real directory, belongs to this user and is closed to all others (mode 0700). It is in
memory where the system has such a place.
"""

from __future__ import annotations

import os
import re
import stat
import time
from binascii import crc32
from contextlib import suppress

from obsloop.base.address import MAX_SOCKET_PATH, parse_addresses
from obsloop.base.environment import GROUP, RUN
from obsloop.group import slots

FORGOTTEN_SECONDS = 60.0
"""A group without a living process begins anew after so many seconds. (One of `obsloop run` has a name of its own.)"""
_MAX_GROUPS = 1_000
"""So many folders are examined when this process looks for old ones."""


class FolderError(Exception):
    """There is no usable folder. The message says why."""


def roots() -> list[str]:
    """Return where the folders of this user's groups may be, the best place first."""
    own = f"obsloop-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [
        *([os.path.join(runtime, "obsloop")] if os.path.isabs(runtime) else []),
        os.path.join("/dev/shm", own),  # noqa: S108 - private, as `private` checks
        os.path.join(os.environ.get("TMPDIR") or "/tmp", own),  # noqa: S108 - as above
    ]


def name_for(address: str, environ: os._Environ[str] | dict[str, str]) -> str | None:
    """Return the group's name or path; None if a process at this address is on its own.

    Processes with the same address are a group. Port 0 is another port for each process, so it makes no group.
    """
    given = environ.get(GROUP)
    if given:
        return given
    if any(not part.socket_path and not part.port for part in parse_addresses(address)):
        return None
    # Short, since the paths of sockets in the folder must be.
    return f"at-{re.sub(r'[^0-9A-Za-z.]+', '_', address)[:24]}-{crc32(address.encode('utf-8', 'replace')):08x}"


def folder_of(name: str) -> str:
    """Return the group's folder, made if needed. Raise FolderError if there can be none."""
    if os.path.isabs(name):
        return short(private(name))
    if not re.fullmatch(r"[0-9A-Za-z._-]{1,100}", name) or name.startswith("."):
        raise FolderError(f"{GROUP} is {name!r}; expected letters, digits, . _ and -, or an absolute path")
    reasons: list[str] = []
    for root in roots():
        try:
            return short(private(os.path.join(private(root), name)))
        except FolderError as error:
            reasons.append(str(error))
    raise FolderError("; ".join(reasons))


def private(path: str) -> str:
    """Make the folder `path` if it does not exist, and check that it is this user's alone."""
    try:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        info = os.lstat(path)
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror or error}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise FolderError(f"{path} is not a folder")
    if info.st_uid != os.geteuid():
        raise FolderError(f"{path} belongs to another user")
    if info.st_mode & 0o077:
        raise FolderError(f"{path} is open to other users; close it with chmod 700")
    if not os.access(path, os.W_OK):
        raise FolderError(f"{path} cannot be written to")
    return path


def short(folder: str) -> str:
    """Return `folder` if a socket in it can have a name."""
    if len(os.fsencode(folder)) + len("/63.give") > MAX_SOCKET_PATH:
        raise FolderError(f"{folder} is too long for sockets in it; choose a shorter one with {GROUP}")
    return folder


def begin_anew(folder: str) -> None:
    """Forget what the group's processes counted, if all of them have been gone for so long that it is another start.

    The caller holds the folder's lock.
    """
    if _is_over(folder, os.path.basename(folder)) and not slots.living(folder):
        for entry in os.scandir(folder):
            if entry.name != "lock" and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(entry.path)


def leave(folder: str) -> None:
    """Remove the folder if this process is the first one of `obsloop run`, and the last one of its group."""
    if os.path.basename(folder).startswith(f"{RUN}{os.getpid()}-") and not slots.living(folder):
        _remove(folder)


def remove_old(folder: str) -> None:
    """Remove the folders of other groups of the same root that have ended. Never raises."""
    with suppress(OSError):
        root = os.path.dirname(folder)
        if os.path.realpath(root) not in map(os.path.realpath, roots()):
            return
        for entry in list(os.scandir(root))[:_MAX_GROUPS]:
            mine = entry.path == folder or not entry.is_dir(follow_symlinks=False)
            if not mine and _is_over(entry.path, entry.name, folder) and not slots.living(entry.path):
                _remove(entry.path)


def _remove(path: str) -> None:
    """Remove a group's folder, which has files only. Never raises."""
    with suppress(OSError):
        for entry in os.scandir(path):
            os.unlink(entry.path)
        os.rmdir(path)


def _is_over(path: str, name: str, present: str = "") -> bool:
    """Return whether a group without living processes will get no more of them. `present` is this process's folder."""
    number = _run(name)
    # In a container each run is process 1. One with the id of the present run has ended, or is in another container.
    if number.isdecimal() and number != _run(os.path.basename(present)) and _exists(int(number)):
        return False
    with suppress(OSError):
        written = [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(path) if entry.name != "lock"]
        return time.time() - max([*written, os.lstat(path).st_mtime]) > FORGOTTEN_SECONDS
    return False


def _run(name: str) -> str:
    """Return the process id in the name of a group of `obsloop run`; an empty text for any other group."""
    return name[len(RUN) :].partition("-")[0] if name.startswith(RUN) else ""


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
