"""Make the service's listening sockets: on a TCP port or on the file of a Unix socket.

Each one listens already when it is returned, since another process may take a port that is only bound.
"""

import os
import socket
import stat
import time
from contextlib import suppress
from errno import EADDRINUSE, EEXIST, ENOENT

from obsloop.base import clock

BACKLOG = 128
_LOCK_SECONDS = 2.0  # how long to wait for another process that makes a socket in the same folder


def listen_on(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port`. Raise OSError as getaddrinfo, bind and listen do."""
    # As bytes: getaddrinfo sends text through the IDNA codec, whose tables take longer to load than all else here.
    name = host.encode() if host.isascii() else host
    family, kind, protocol, _, address = socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if port:
            # With this a restarted program gets its port back at once. On Linux, several processes may then bind a
            # port while none of them listens; `listen` fails in all but the first.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def listen_unix(path: str, mode: int) -> socket.socket:
    """Return a socket that listens at the file `path`, which gets the access rights `mode`.

    Replace a socket file whose process is gone. Raise OSError with EADDRINUSE if a process listens there, with EEXIST
    if the file is of another kind or belongs to another user.
    """
    folder = _open_folder(os.path.dirname(path))
    try:
        _lock(folder, os.path.dirname(path))
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(OSError):
                os.fchmod(sock.fileno(), mode)  # on Linux the file is created with these rights
            sock.bind(path)
            try:
                os.chmod(path, mode)  # against the umask, and for other systems
                sock.listen(BACKLOG)
            except BaseException:
                os.unlink(path)
                raise
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        _unlock(folder)


class SocketFile:
    """The file of a socket on which this process listens; it is removed at the process's end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._process = os.getpid()
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file, unless it belongs to another process by now."""
        if self._process == os.getpid():
            with suppress(OSError):
                if _identity(self._path) == self._identity:
                    os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_dev, info.st_ino


def _open_folder(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise OSError(ENOENT, f"there is no folder {folder}") from None


def _lock(folder: int, name: str) -> None:
    """Lock out other processes that make sockets in `folder`: one could remove this socket before it listens."""
    import fcntl  # noqa: PLC0415  (for Unix sockets only)

    end = clock.seconds() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if clock.seconds() > end:
                raise OSError(EEXIST, f"another process holds a lock on the folder {name}") from None
            time.sleep(0.01)


def _unlock(folder: int) -> None:
    import fcntl  # noqa: PLC0415

    with suppress(OSError):
        fcntl.flock(folder, fcntl.LOCK_UN)  # closing does not unlock while a forked child has a copy
    os.close(folder)


def _remove_stale(path: str) -> None:
    """Remove the socket file of a process that is gone. Raise OSError for anything else at `path`."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        raise OSError(EEXIST, f"there is a file {path} that is not a socket; obsloop does not remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except PermissionError:
            raise
        except OSError:  # its queue is full, or it is not a stream socket: a process uses it
            raise OSError(EADDRINUSE, "in use") from None
        else:
            raise OSError(EADDRINUSE, "in use")
    if info.st_uid != os.geteuid():
        raise OSError(EEXIST, f"the socket file {path} belongs to another user; remove it if its process is gone")
    with suppress(FileNotFoundError):
        os.unlink(path)
