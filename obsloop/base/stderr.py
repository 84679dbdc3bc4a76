"""Write lines to stderr without ever waiting for its reader: stderr may be a full pipe.

A thread that waits there holds the lock of the logging handler, and the program cannot exit. So a line is left out if
writing it would wait. On a pipe, lines are cut to what fits in one write.
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

_LONGEST = 3_500  # bytes: a pipe that is ready for writing has room for 4096 (PIPE_BUF on Linux), as POSIX promises

_left_out = 0  # lines left out since the last one that was written


def would_wait(stream: Any) -> bool:
    """Return whether a write to ``stream``, a Python text file, would wait for a reader now. Runs no foreign code."""
    fd = _descriptor(stream)
    if fd is None or not hasattr(select, "poll"):
        return False
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return not poll.poll(0)
    return False


def watch(logger: logging.Logger) -> None:
    """Leave out a record that is logged on ``logger`` itself if writing it would wait."""
    if _fits not in logger.filters:
        logger.addFilter(_fits)


def _fits(record: logging.LogRecord) -> bool:
    """Return whether a record can be written at once, as a filter of ``logging``. On a pipe, cut it to what fits."""
    global _left_out  # noqa: PLW0603
    cut = False
    for stream in _streams(logging.getLogger(record.name)):
        if would_wait(stream):
            _left_out += 1
            return False
        cut = cut or _is_pipe(stream)
    if _left_out:
        with suppress(Exception):  # an argument that cannot be formatted: the handler reports it
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
    """Return the streams to which a record of ``logger`` would be written."""
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
        return None  # a write to it does not wait for the system, or it is the program's own class
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
    """Keep the beginning and the end of a text that is longer than ``longest`` bytes."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= longest:
        return text
    begin, end = encoded[: longest // 3], encoded[-(longest * 2 // 3 - 20) :]
    return f"{begin.decode('utf-8', 'ignore')}\n  (cut)\n{end.decode('utf-8', 'ignore')}"


def say(line: str) -> None:
    """Write `obsloop: <line>` to stderr, in one write so that lines of several processes do not mix."""
    with suppress(Exception):  # sys.stderr is None in a daemon, and may be any object of the program
        if sys.stderr is not None and not would_wait(sys.stderr):
            sys.stderr.write(f"obsloop: {line}\n")
            sys.stderr.flush()


def say_once(key: str, line: str) -> None:
    """Write `line` as `say` does, if this is the process's first call with `key`."""
    if first_time(f"stderr: {key}"):
        say(line)


def say_error(key: str, what: str) -> None:
    """Write once per `key`, in one line, that `what` happened, with the current error; log its traceback at DEBUG."""
    if first_time(f"stderr: {key}"):
        error = sys.exc_info()[1]
        reason = f"{type(error).__name__}: {error}".replace("\n", " ").replace("\r", " ")
        say(f"{what}: {reason}. The traceback is logged at level DEBUG by the logger obsloop.")
        with suppress(Exception):  # one of the program's logging handlers may raise
            logger.debug("%s", what, exc_info=True)
