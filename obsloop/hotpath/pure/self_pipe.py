"""The loop's own pipe, by which other threads wake it: one write for all calls until the loop has read.

A call appends its handle, and writes only if no byte is on the way. The loop reads all bytes, and then notes that none
is on the way any more. A handle that was appended before that note is in the queue, which the loop looks at before it
waits; a call after it writes again. So no wake-up is lost. Signals write to the same pipe, past this file.
"""

from __future__ import annotations

from typing import Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.base.fork import reset_in_child
from obsloop.hotpath import cold_path

STOCK_READ: Any = getattr(private_selector_events.BaseSelectorEventLoop, "_read_from_self", None)
STOCK_WRITE: Any = getattr(private_selector_events.BaseSelectorEventLoop, "_write_to_self", None)
_process = 1  # a forked child has another number: the parent may read the byte that was on the way


def wake(self: Any) -> None:
    """Wake the loop, after a handle was put onto its queue."""
    obs = self._obsloop
    own: Any = getattr(self._write_to_self, "__func__", None)
    if own is not STOCK_WRITE or not obs.wakes_once:
        self._write_to_self()
    elif obs.woken != _process:
        written = False
        try:
            obs.woken = _process
            written = self._csock.send(b"\0") == 1
        except (AttributeError, OSError):  # it is closed, or full
            pass
        finally:
            if not written:
                obs.woken = 0
        if not written:
            STOCK_WRITE(self)


def read_from_self(self: Any) -> None:
    """Read what woke the loop, as asyncio's ``_read_from_self`` does."""
    try:
        STOCK_READ(self)
    finally:
        self._obsloop.woken = 0


def wake_once(loop: Any) -> None:
    """Let calls share a wake-up from now on, if the loop's reader of its pipe is the method above."""
    loop._obsloop.wakes_once = cold_path.reads_itself(loop, read_from_self)


@reset_in_child
def forked() -> None:
    """Forget in a forked child which loops are woken."""
    global _process  # noqa: PLW0603 - one for all loops
    _process += 1
