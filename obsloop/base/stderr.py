"""Never wait for the reader of a log: stderr may be a pipe that is full.

A thread that waits there holds the lock of the logging handler, and the program cannot exit. So a line is left out
where it would wait. On a pipe the rest is cut to what fits in one write.
"""

from __future__ import annotations

import io
import logging
import os
import select
import stat
import sys
from contextlib import suppress
from typing import Any

from obsloop.base.log import first_time, logger

_LONGEST = 3_500  # bytes: POSIX promises room for 4096 (PIPE_BUF on Linux) where a pipe can be written to

_left_out = 0  # lines, since the last one that was written


def would_wait(stream: Any) -> bool:
    """Whether a write to ``stream``, a text file of Python's, would wait for a reader now. Runs no code of others."""
    fd = _descriptor(stream)
    if fd is None or not hasattr(select, "poll"):
        return False
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return not poll.poll(0)
    return False


def watch(logger: logging.Logger) -> None:
    """Leave out what would wait of all that is logged on ``logger`` itself."""
    if _fits not in logger.filters:
        logger.addFilter(_fits)


def _fits(record: logging.LogRecord) -> bool:
    """A filter of logging's: whether the record can be written at once. Cuts it to what fits into a pipe."""
    global _left_out  # noqa: PLW0603
    cut = False
    for stream in _streams(logging.getLogger(record.name)):
        if would_wait(stream):
            _left_out += 1
            return False
        cut = cut or _is_pipe(stream)
    if _left_out:
        with suppress(Exception):  # an argument that cannot be shown: the handler says so
            text = record.getMessage()
            record.msg = f"{text} ({_left_out} lines before this one were left out: stderr was not being read)"
            record.args = ()
            _left_out = 0
    if cut:
        with suppress(Exception):  # as above
            text = record.getMessage()
            if record.exc_info and not record.exc_text:
                record.exc_text = _cut(logging.Formatter().formatException(record.exc_info), _LONGEST // 2)
                record.msg, record.args = _cut(text, _LONGEST // 2), ()
            else:
                record.msg, record.args = _cut(text, _LONGEST), ()
    return True


def _streams(logger: logging.Logger | None) -> list[Any]:
    """The streams that a record of ``logger`` would be written to."""
    handlers: list[logging.Handler] = []
    while logger is not None:
        handlers.extend(logger.handlers)
        logger = logger.parent if logger.propagate else None
    if not handlers and logging.lastResort is not None:
        handlers.append(logging.lastResort)
    found: list[Any] = [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]
    return [handler.stream for handler in found]


def _descriptor(stream: Any) -> int | None:
    if type(stream) is not io.TextIOWrapper:
        return None  # nothing that the system makes wait, or the program's own class
    try:
        return stream.fileno()
    except (OSError, ValueError):  # closed
        return None


def _is_pipe(stream: Any) -> bool:
    fd = _descriptor(stream)
    if fd is None:
        return False
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _cut(text: str, longest: int) -> str:
    """The beginning and the end of a text of more than ``longest`` bytes."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= longest:
        return text
    begin, end = encoded[: longest // 3], encoded[-(longest * 2 // 3 - 20) :]
    return f"{begin.decode('utf-8', 'ignore')}\n  (cut)\n{end.decode('utf-8', 'ignore')}"


def say(line: str) -> None:
    """Write `obsloop: <line>` to stderr, in one write so that lines of several processes do not mix."""
    with suppress(Exception):  # sys.stderr is None in a daemon, and may be any object of the program's
        if sys.stderr is not None and not would_wait(sys.stderr):
            sys.stderr.write(f"obsloop: {line}\n")
            sys.stderr.flush()


def say_once(key: str, line: str) -> None:
    """Say it the first time that this process comes by with `key`."""
    if first_time(f"stderr: {key}"):
        say(line)


def say_error(key: str, what: str) -> None:
    """Say once in one line that `what` happened, with the error that is being handled; log its traceback at DEBUG."""
    if first_time(f"stderr: {key}"):
        error = sys.exc_info()[1]
        reason = f"{type(error).__name__}: {error}".replace("\n", " ").replace("\r", " ")
        say(f"{what}: {reason}. The traceback is logged at level DEBUG by the logger obsloop.")
        with suppress(Exception):  # a logging handler of the program's may raise
            logger.debug("%s", what, exc_info=True)
