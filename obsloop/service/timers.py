"""What the service does at certain times: in its own thread if it never waits, else in one of the others."""

from collections.abc import Callable

from obsloop.base import clock

NEVER = float("inf")
_AGAIN_SECONDS = 1.0


class Timer:
    """Call `work` after `seconds`, and then as many seconds later as it returns; never again if it returns `NEVER`."""

    __slots__ = ("at", "thread", "work")

    def __init__(self, thread: str | None, work: Callable[[], float], seconds: float) -> None:
        self.thread = thread
        """The name of the thread that does the work; None: the service's own, which must not wait."""
        self.work = work
        self.at = clock.seconds() + seconds
        """When it is due, by `clock.seconds`; `NEVER` while another thread does it."""

    def done(self, result: object) -> None:
        """Note that the work is done, and when it is due again. An error in it returns None."""
        pause = result if isinstance(result, float) else _AGAIN_SECONDS
        self.at = clock.seconds() + pause
