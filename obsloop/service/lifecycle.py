"""Start the one service of this process, report why it cannot start, and begin anew in a forked child."""

import atexit
import errno
import os
import socket
import threading

from obsloop.base.address import UNIX, Address, base_url, parse_addresses
from obsloop.base.stderr import say
from obsloop.base.threads import in_subinterpreter
from obsloop.service import access
from obsloop.service.connection import Listener
from obsloop.service.listeners import SocketFile, listen_on, listen_unix
from obsloop.service.routes import ROUTES, Options
from obsloop.service.server import Server
from obsloop.tasks import census

# Set by `obsloop run` to the process id that the observed program begins with; its children inherit it.
RUN_PID = "OBSLOOP_RUN_PID"


# How long a fork waits until the service's threads are idle: longer than any scrape takes, but not for ever, since a
# thread may wait for a module that the forking thread is importing.
_FORK_WAIT_SECONDS = 1.0
# After a fork that waited in vain: an exporter hangs, and each further fork would wait as long.
_FORK_WAIT_AGAIN_SECONDS = 0.01


class _State:
    """What a process knows of its service. A forked child gets a new one."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.url: str | None = None
        self.fork_wait = _FORK_WAIT_SECONDS
        # The result for each address, so that a thousand loops try it, and log an error, only once.
        self.answers: dict[str, str | None] = {}
        self.files: list[SocketFile] = []


_state = _State()

_paused: dict[int, list[threading.Lock]] = {}  # by the thread that forks
# How many processes of one `obsloop run` get a Unix socket each: PATH, PATH.1, PATH.2 ...
_MAX_SOCKETS = 64


def ensure(address: str, *, unhealthy_after: float, allowed_hosts: str | None, socket_mode: int) -> str | None:
    """Do the work of `obsloop.service.ensure`, which lets one thread at a time in."""
    state = _state
    if address not in state.answers:
        state.answers[address] = _start(state, address, Options(unhealthy_after), allowed_hosts, socket_mode)
    return state.answers[address]


def _start(state: _State, text: str, options: Options, allowed_hosts: str | None, socket_mode: int) -> str | None:
    if state.url is not None:
        say(f"this process is already served at {state.url}: the address {text} is not served too.")
        return state.url
    if in_subinterpreter():
        say(
            f"cannot serve on {text}: this is a subinterpreter, which could not end while it is served. "
            "Call obsloop.snapshots() in it instead. The program runs on, observed but not served."
        )
        return None
    try:
        addresses = parse_addresses(text)
    except Exception as error:  # of any kind: the program matters more than its service
        _refuse(text, str(error), others=False)
        return None
    found: list[tuple[Address, socket.socket]] = []
    refused: list[tuple[str, str]] = []
    for address in addresses:
        try:
            found.append((address, _listen(address, socket_mode)))
        except Exception as error:
            refused.append((address.text, _reason(error, address)))
    if found:
        try:
            # With allowed hosts, names are checked at every TCP address; without, only on loopback.
            checks_hosts = True if allowed_hosts else None
            listeners = [
                Listener(
                    sock,
                    {path: route for path, route in ROUTES.items() if path in address.paths},
                    False if address.socket_path else checks_hosts,
                )
                for address, sock in found
            ]
            hosts = access.names(allowed_hosts, (address.host for address, _ in found))
            state.server = _serve(Server(listeners, options, hosts))
        except Exception as error:
            for _, sock in found:
                _close(sock)
            refused += [(address.text, str(error) or type(error).__name__) for address, _ in found]
            found = []
    for asked, reason in refused:
        _refuse(asked, reason, others=bool(found))
    for address, sock in found:
        _serving(state, address, sock)
    return state.url


def _serve(server: Server) -> Server:
    census.begin()
    try:
        server.start()
    except BaseException:
        server.abandon()
        raise
    return server


def _close(sock: socket.socket) -> None:
    """Close a socket that was never served, and remove its file."""
    if sock.fileno() >= 0:
        if sock.family == socket.AF_UNIX:
            SocketFile(sock.getsockname()).remove()
        sock.close()


def _serving(state: _State, address: Address, sock: socket.socket) -> None:
    """Note where the process is served, and print it under `obsloop run`."""
    name = sock.getsockname()
    if address.socket_path:
        url = UNIX + name
        state.files.append(SocketFile(name))
        what, fallback = (
            f"{url} (curl --unix-socket {name} http://localhost{_first(address)})",
            name != address.socket_path,
        )
        taken = f"{address.socket_path} is in use"
    else:
        url = base_url(address.host, name[1])
        what, fallback = f"{url}{_first(address)}", address.port not in (0, name[1])
        taken = f"port {address.port} is in use"
    if state.url is None:
        state.url = url
    if RUN_PID in os.environ:
        # The only way to learn the real port, after port 0 and in children.
        say(f"serving {what}" + (f" (process {os.getpid()}; {taken})" if fallback else ""))


def _first(address: Address) -> str:
    return "/metrics" if "/metrics" in address.paths else address.paths[0]


def _listen(address: Address, socket_mode: int) -> socket.socket:
    """Return a listening socket. In a child of `obsloop run`, take another port or path if `address` is in use."""
    try:
        if address.socket_path:
            return listen_unix(address.socket_path, socket_mode)
        return listen_on(address.host, address.port)
    except OSError as error:
        # In a child this is normal: another worker has the port. In the program's first process it is an error: the
        # user gave that port and expects to scrape it.
        if error.errno != errno.EADDRINUSE or not _is_child_of_run():
            raise
        if address.socket_path:
            return _listen_beside(address.socket_path, socket_mode)
        return listen_on(address.host, 0)


def _listen_beside(path: str, socket_mode: int) -> socket.socket:
    """Return a socket at `path.1`, `path.2` ... The number has a bound, since files of dead processes are reused."""
    for number in range(1, _MAX_SOCKETS):
        try:
            return listen_unix(f"{path}.{number}", socket_mode)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "in use")


def _is_child_of_run() -> bool:
    first = os.environ.get(RUN_PID)
    return first is not None and first != str(os.getpid())


def _reason(error: Exception, address: Address) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host {address.host!r} is not known ({error.strerror})"
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    what = f"the file {address.socket_path}" if address.socket_path else f"the port {address.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{what} is in use by another process"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address.host} is not an address of this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{what} needs rights that this process does not have"
    return error.strerror or str(error)


def _refuse(address: str, reason: str, *, others: bool) -> None:
    choose = "--address HOST:PORT or OBSLOOP_ADDRESS (port 0 picks a free one)"
    if address.startswith(UNIX):
        choose = "--address unix:/PATH or OBSLOOP_ADDRESS"
    rest = "The other addresses are served." if others else "The program runs on, observed but not served."
    say(f"cannot serve on {address}: {reason}. Choose another with {choose}. {rest}")


def _before_fork() -> None:
    state = _state
    if state.server is not None:
        held = state.server.pause(state.fork_wait)
        state.fork_wait = _FORK_WAIT_SECONDS if held else _FORK_WAIT_AGAIN_SECONDS
        _paused[threading.get_ident()] = held


def _after_fork_in_parent() -> None:
    Server.resume(_paused.pop(threading.get_ident(), []))


def _after_fork_in_child() -> None:
    """Forget the parent's service, whose threads are not in the child, and close its sockets."""
    global _state
    old, _state = _state, _State()
    _paused.clear()
    if old.server is not None:
        old.server.abandon()


def _at_exit() -> None:
    """Remove the files of this process's Unix sockets. The next process replaces those that a killed one leaves."""
    for file in _state.files:
        file.remove()


atexit.register(_at_exit)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
