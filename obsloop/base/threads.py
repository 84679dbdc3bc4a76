"""Start obsloop's threads so that the program does not notice them, and name the program's threads by kind."""

from __future__ import annotations

import re
import signal
import threading
from importlib import import_module

from obsloop.base.settings import tidy_name

# Signals raised by the thread's own fault are not blocked, so that faulthandler can report them.
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}


# As ``threading`` and ``concurrent.futures`` number them: "Thread-7 (serve)", "Thread-7", "ThreadPoolExecutor-0_3".
_NUMBERED = re.compile(r"(?P<thread>Thread)-\d+(?P<target> \(.+\))?|(?P<pool>.+?)(?:-\d+)?_\d+", re.DOTALL)


def kind_of_thread(name: str) -> str:
    """Return a thread's name without the number that Python put into it: ``Thread (serve)``, ``ThreadPoolExecutor``.

    Threads of one kind share a name. A name that the program chose stays as it is.
    """
    found = _NUMBERED.fullmatch(name)
    if found is not None:
        name = found["pool"] or f"{found['thread']}{found['target'] or ''}"
    return tidy_name(name)


def start_without_signals(thread: threading.Thread) -> None:
    """Start ``thread`` with all signals blocked but those of faults, then restore the caller's signal mask.

    Otherwise the kernel could deliver a signal to this thread, and a main thread in ``sigwait()`` or a plain system
    call would not notice it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        thread.start()
        return
    closed = {s for s in signal.valid_signals() if getattr(s, "name", "") not in _FAULTS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, closed)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def are_refused(error: RuntimeError) -> bool:
    """Return whether ``error`` says that this interpreter starts no daemon threads: it is isolated, or it is ending."""
    return "interpreter" in str(error)


def in_subinterpreter() -> bool:
    """Return whether this is not the process's main interpreter.

    A subinterpreter must have no other thread left when it ends; up to Python 3.13, also none between one piece of code
    run in it and the next.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):  # from 3.13 on, and before
        try:
            interpreters = import_module(name)
        except (ImportError, OSError):
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False
