"""What is logged: names cannot forge a line, and no reader of stderr is waited for."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import obsloop
from obsloop.base import log, stderr
from tests.blocking.support import BLOCK

FORGED = "2026-01-01 CRITICAL root: all is lost"

UNREAD = """
import os, sys, time
import obsloop

async def main():
    time.sleep(0.4)

os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 512)
except BlockingIOError:
    pass
os.set_blocking(2, True)
obsloop.run(main(), settings=obsloop.Settings(unhealthy_after=0.2))
"""


def block_in(filename: str, until: Callable[[], bool]) -> None:
    """Block a loop in code that says it comes from `filename`, and has such a function name."""
    deadline = time.monotonic() + 30
    space: dict[str, Any] = {"sleep": time.sleep, "over": lambda: until() or time.monotonic() > deadline}
    source = f"async def main():\n    sleep({BLOCK})\n    while not over(): sleep({BLOCK})\n"
    code = compile(source, filename, "exec")
    exec(code, space)
    main = space["main"]
    main.__code__ = main.__code__.replace(co_name=f"main\n{FORGED}", co_qualname=f"main\n{FORGED}")
    main.__qualname__ = f"main\n{FORGED}"
    main.__name__ = f"main\n{FORGED}"
    obsloop.run(main(), settings=obsloop.Settings(unhealthy_after=0.15, log_slow_callbacks=True))


def test_a_name_cannot_forge_a_line_of_the_log(caplog):
    """Newlines and control characters in file and function names are written as escapes."""
    caplog.set_level(logging.WARNING, "obsloop")
    log.forked()  # at most one such line in ten seconds, and a test before may have had it
    # The watchdog reports a block while it lasts, on a busy machine late.
    block_in(f"app.py\n{FORGED}\x1b[2J", lambda: any("blocked for" in r.getMessage() for r in caplog.records))
    lines = [line for record in caplog.records for line in record.getMessage().split("\n")]
    assert any("blocked for" in line for line in lines)
    assert any(FORGED in line for line in lines)
    assert not [line for line in lines if line.startswith(FORGED)]
    assert "\x1b" not in "".join(lines)


def test_the_program_exits_although_nobody_reads_its_stderr():
    """A pipe that is full: the watchdog's line about a long block is left out, and the exit waits for no lock."""
    child = subprocess.Popen([sys.executable, "-c", UNREAD], stderr=subprocess.PIPE)
    try:
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()
        child.stderr.close()


def test_a_line_into_a_pipe_fits_into_it():
    """Otherwise it would wait for the reader in the middle of a line; what was left out before is counted in it."""
    r, w = os.pipe()
    stream = os.fdopen(w, "w")
    logger = logging.getLogger("tests.of.pipes")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(stream))
    stderr.watch(logger)
    stderr.watch(logger)
    assert logger.filters == [stderr._fits]
    try:
        os.set_blocking(w, False)
        try:
            while True:
                os.write(w, b"x" * 512)
        except BlockingIOError:
            os.set_blocking(w, True)
        assert stderr.would_wait(stream)
        logger.warning("left out")
        full = b""
        while not full.endswith(b"x") or len(full) < 65536:
            full += os.read(r, 65536)
        logger.warning("begin %s end", "\N{SNOWMAN}" * 5000)
        line = os.read(r, 65536).decode()
    finally:
        os.close(r)
        logger.handlers.clear()
        stream.close()
    assert line.startswith("begin")
    assert line.endswith("(1 lines before this one were left out: stderr was not being read)\n")
    assert len(line.encode()) < 4096
