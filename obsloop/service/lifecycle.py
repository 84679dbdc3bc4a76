"""Start the one service of this process, report why it cannot start, and begin anew in a forked child."""

import atexit
import errno
import os
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from obsloop.base.address import UNIX, Address, base_url, parse_addresses
from obsloop.base.stderr import say
from obsloop.base.threads import in_subinterpreter
from obsloop.service import access
from obsloop.service.connection import Listener
from obsloop.service.listeners import SocketFile, listen_on, listen_unix
from obsloop.service.routes import ROUTES, Options
from obsloop.service.server import Server
from obsloop.service.sharing import FolderError, Sharing, joined
from obsloop.service.timers import Timer
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
        self.sharing: Sharing | None = None
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
    asked = _Asked(state, text, addresses, options, allowed_hosts, socket_mode)
    try:
        with joined(text, options.unhealthy_after) as sharing:
            return _open(asked, sharing)
    except (FolderError, OSError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        say(f"cannot share {text} with other processes: {reason}. Each process is served alone.")
        return _open(asked, None)


class _Asked(NamedTuple):
    """What `ensure` was called with."""

    state: _State
    text: str
    addresses: list[Address]
    options: Options
    allowed_hosts: str | None
    socket_mode: int

    def listener(self, address: Address, sock: socket.socket) -> Listener:
        """Return a listener that serves the paths of `address`."""
        # With allowed hosts, names are checked at every TCP address; without, only on loopback.
        checks_hosts = True if self.allowed_hosts else None
        routes = {path: route for path, route in ROUTES.items() if path in address.paths}
        return Listener(sock, routes, False if address.socket_path else checks_hosts)


def _open(asked: _Asked, sharing: Sharing | None) -> str | None:
    """Serve, on sockets of the group or on new ones. Return the first URL."""
    state, addresses = asked.state, asked.addresses
    shared = sharing.ask([address.text for address in addresses]) if sharing else {}
    found: list[tuple[Address, socket.socket]] = []
    refused: list[tuple[str, str]] = []
    for address in addresses:
        try:
            sock = shared.get(address.text) or _listen(address, asked.socket_mode, sharing)
        except Exception as error:
            refused.append((address.text, _reason(error, address)))
            sock = None
        if sock is not None:
            found.append((address, sock))
        elif sharing is not None:
            sharing.missing[address.text] = partial(asked.listener, address)
    if found or sharing is not None:
        try:
            listeners = [asked.listener(address, sock) for address, sock in found]
            timers: list[Timer] = []
            if sharing:
                sharing.listening.update({address.text: sock for address, sock in found})
                listeners += sharing.listeners()
                timers = sharing.timers(lambda: server)
            hosts = access.names(asked.allowed_hosts, (address.host for address in addresses))
            server = Server(listeners, asked.options, hosts, timers)
            state.server, state.sharing = _serve(server), sharing
        except Exception as error:
            for address, sock in found:
                _close(sock, is_shared=address.text in shared)
            refused += [(address.text, str(error) or type(error).__name__) for address, _ in found]
            found = []
    for text, reason in refused:
        _refuse(text, reason, others=bool(found))
    for address, sock in found:
        _serving(state, address, sock, sharing, is_shared=address.text in shared)
    return state.url


def _serve(server: Server) -> Server:
    census.begin()
    try:
        server.start()
    except BaseException:
        server.abandon()
        raise
    return server


def _close(sock: socket.socket, *, is_shared: bool) -> None:
    """Close a socket that was never served, and remove its file."""
    if sock.fileno() >= 0:
        if sock.family == socket.AF_UNIX and not is_shared:
            SocketFile(sock.getsockname()).remove()
        sock.close()


def _serving(state: _State, address: Address, sock: socket.socket, sharing: Sharing | None, *, is_shared: bool) -> None:
    """Note where the process is served, and print it under `obsloop run`, once for each group."""
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
    port = 0 if address.socket_path else name[1]
    if is_shared or (sharing is not None and not sharing.is_new(address.text, url, port)):
        return
    if RUN_PID in os.environ:
        # The only way to learn the real port, after port 0 and in children.
        say(f"serving {what}" + (f" (process {os.getpid()}; {taken})" if fallback else ""))


def _first(address: Address) -> str:
    return "/metrics" if "/metrics" in address.paths else address.paths[0]


def _listen(address: Address, socket_mode: int, sharing: Sharing | None) -> socket.socket | None:
    """Return a listening socket; None if another process of the group has it and may hand it over later.

    In a child of `obsloop run`, take another port or path if `address` is in use by another program.
    """
    if sharing is not None and not address.socket_path:
        port = sharing.remembered(address.text)
        if port and port != address.port:
            with suppress(OSError):
                return listen_on(address.host, port)
    try:
        if address.socket_path:
            return listen_unix(address.socket_path, socket_mode)
        return listen_on(address.host, address.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and sharing is not None and sharing.others:
            return None
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
    """Leave the group, and remove the files of Unix sockets that no process serves any more.

    The next process replaces those that a killed one leaves.
    """
    sharing = _state.sharing
    others = sharing is not None and not sharing.member.is_last()
    if sharing is not None:
        sharing.member.leave()
    if not others:
        for file in _state.files:
            file.remove()


atexit.register(_at_exit)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
