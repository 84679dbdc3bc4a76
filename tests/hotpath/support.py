"""What the tests of the cores share: every way onto a loop, and objects of which one can tell when they are gone."""

import gc
import importlib.util
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support import run_briefly

BUILT = importlib.util.find_spec("obsloop.hotpath.compiled.core") is not None
"""Whether there is a compiled core to choose."""
ON_THE_OTHER = "TESTS_ON_THE_OTHER_CORE"
"""Set in the process that runs these tests on the other core, so that it does not start a third one."""

WAYS = ("call_soon", "timer", "threadsafe", "reader", "writer")


class Thing:
    """Something that can hold a handle, be held by a callback, and be watched until it is gone."""

    handle: Any = None

    def called(self, *args: object) -> None:
        """The callback."""


@contextmanager
def ready_fd(way: str) -> Iterator[int]:
    """A descriptor that can be read, or written, at once."""
    r, w = os.pipe()
    os.write(w, b"x")
    try:
        yield w if way == "writer" else r
    finally:
        os.close(r)
        os.close(w)


def put(loop: Any, way: str, fd: int, callback: Callable[..., Any], *args: Any) -> Any:
    """Put `callback` on the loop in one of the `WAYS`; the handle."""
    if way == "call_soon":
        return loop.call_soon(callback, *args)
    if way == "timer":
        return loop.call_later(0, callback, *args)
    if way == "threadsafe":
        return loop.call_soon_threadsafe(callback, *args)
    if way == "reader":
        return loop._add_reader(fd, callback, *args)
    return loop._add_writer(fd, callback, *args)


def unwatch(loop: Any, way: str, fd: int) -> None:
    """Stop watching, where that was the way."""
    if way == "reader":
        loop.remove_reader(fd)
    elif way == "writer":
        loop.remove_writer(fd)


def run_all(loop: Any) -> None:
    """Run what is ready, with what that makes ready."""
    run_briefly(loop)
    run_briefly(loop)


def collect() -> None:
    """Collect garbage; a loop that was dropped unclosed says so, which is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def other_process(source: str, *options: str, timeout: float = 60, **environ: str) -> str:
    """What `source` prints in a process of its own, on this process's core; it must end well, and say nothing else."""
    env = {k: v for k, v in os.environ.items() if k == "OBSLOOP_PURE" or not k.startswith(("PYTHON", "OBSLOOP_"))}
    env["OBSLOOP_LOG_BLOCKED_AFTER"] = "3600"  # a busy machine blocks any loop for half a second: it would be logged
    done = subprocess.run(
        [sys.executable, *options, "-c", f"import sys; sys.path[:] = {sys.path!r}\n" + textwrap.dedent(source)],
        env=env | environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip()
