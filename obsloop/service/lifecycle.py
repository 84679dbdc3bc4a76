"""The one service of this process: when it starts, what happens when it cannot, and what a child after fork
does.
"""

import errno
import os
import socket
import threading

from obsloop import _tasks
from obsloop._threads import in_subinterpreter
from obsloop.service.address import base_url, parse_address
from obsloop.service.routes import ROUTES, Options
from obsloop.service.say import say
from obsloop.service.server import Server, listen_on

# Set by `obsloop run` to the process id that the observed program begins with; its children inherit it.
RUN_PID = "OBSLOOP_RUN_PID"


# How long a fork waits for the service's thread to come to rest: longer than any scrape takes, and not for ever, since
# that thread may be waiting for a module that the forking thread is importing.
_FORK_WAIT_SECONDS = 1.0
# After a fork that waited in vain: an exporter hangs, and each further fork would wait as long for it.
_FORK_WAIT_AGAIN_SECONDS = 0.01


class _State:
    """What a process knows of its service. A child after fork gets a new one."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.url: str | None = None
        self.fork_wait = _FORK_WAIT_SECONDS
        # What each address asked for came to, so that a thousand loops try, and complain, once.
        self.answers: dict[str, str | None] = {}


_state = _State()

_paused: dict[int, Server] = {}  # by the thread that forks


def ensure(address: str, *, unhealthy_after: float) -> str | None:
    """See `obsloop.service.ensure`, which lets one thread at a time in."""
    state = _state
    if address not in state.answers:
        state.answers[address] = _start(state, address, unhealthy_after)
    return state.answers[address]


def _start(state: _State, address: str, unhealthy_after: float) -> str | None:
    if state.url is not None:
        say(f"this process is already served at {state.url}; the address {address} is not served as well.")
        return state.url
    if in_subinterpreter():
        say(
            f"cannot serve on {address}: this is a subinterpreter, which could not be ended while it is served. "
            "Ask obsloop.snapshots() in it instead. The program runs on, observed but not served."
        )
        return None
    try:
        host, port = parse_address(address)
        listener = _listen(host, port, address)
        if listener is None:
            return None
        server = Server(listener, ROUTES, Options(unhealthy_after))
        _tasks.begin()
        try:
            server.start()
        except BaseException:
            server.abandon()
            raise
    except Exception as error:  # whatever it is: the observed program is more important than its observer
        _refuse(address, str(error) or type(error).__name__)
        return None
    state.server = server
    state.url = base_url(host, listener.getsockname()[1])
    if RUN_PID in os.environ:
        # The way to find out which port is really served, port 0 and the children's included.
        fallback = port not in (0, listener.getsockname()[1])
        reason = f" (process {os.getpid()}; port {port} is in use)" if fallback else ""
        say(f"serving {state.url}/metrics{reason}")
    return state.url


def _listen(host: str, port: int, address: str) -> socket.socket | None:
    """The bound socket; in a child of `obsloop run` on a free port where the one asked for is taken; None
    when refused.
    """
    try:
        try:
            return listen_on(host, port)
        except OSError as error:
            # A worker's sibling has the port, as must be. A program's own first process is told instead:
            # there the port is what somebody typed and expects to scrape.
            if error.errno == errno.EADDRINUSE and port and _is_child_of_run():
                return listen_on(host, 0)
            raise
    except OSError as error:
        _refuse(address, _reason(error, host, port))
        return None


def _is_child_of_run() -> bool:
    first = os.environ.get(RUN_PID)
    return first is not None and first != str(os.getpid())


def _reason(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host {host!r} is not known ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return f"the port {port} is in use by another process"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"the port {port} needs rights that this process does not have"
    return error.strerror or str(error)


def _refuse(address: str, reason: str) -> None:
    say(
        f"cannot serve on {address}: {reason}. Choose another with --address HOST:PORT or OBSLOOP_ADDRESS "
        "(port 0 picks a free one). The program runs on, observed but not served."
    )


def _before_fork() -> None:
    state = _state
    server = state.server
    if server is not None:
        if server.pause(state.fork_wait):
            _paused[threading.get_ident()] = server
            state.fork_wait = _FORK_WAIT_SECONDS
        else:
            state.fork_wait = _FORK_WAIT_AGAIN_SECONDS


def _after_fork_in_parent() -> None:
    server = _paused.pop(threading.get_ident(), None)
    if server is not None:
        server.resume()


def _after_fork_in_child() -> None:
    """Forget the parent's service, whose thread is not here, and let go of its sockets."""
    global _state
    old, _state = _state, _State()
    _paused.clear()
    _tasks.forked()
    if old.server is not None:
        old.server.abandon()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
