"""Threads of our own, in a program that does not know of them."""

from __future__ import annotations

import signal
import threading
from importlib import import_module

# Signals raised by the thread's own fault stay open, so that faulthandler can still tell of them.
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}


def start_without_signals(thread: threading.Thread) -> None:
    """Start ``thread``, which gets none of the program's signals. The caller's signal mask is put back as it was.

    A thread that does not block them could be the one that the kernel hands them to, and a main thread in ``sigwait()``
    or a plain system call would not notice.
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
    """Whether ``error`` says that this interpreter starts no daemon threads: an isolated one, or one that is ending."""
    return "interpreter" in str(error)


def in_subinterpreter() -> bool:
    """Whether this is not the process's main interpreter.

    Then no thread may be left when it ends, and up to Python 3.13 none from one piece of code run in it to the next.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):  # from 3.13 on, and before
        try:
            interpreters = import_module(name)
        except (ImportError, OSError):
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False
