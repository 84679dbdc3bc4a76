"""Threads of our own, in a program that does not know of them."""

from __future__ import annotations

import signal
import threading

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
