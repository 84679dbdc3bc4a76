"""The page with all keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

TEXT = """\
obsloop top: what blocks loops, and what waits. Any key goes back.

 1 2 3 4 5   overview, culprits, tasks, executors, lints   (tab: the next one)
 up down     choose a row; what is known of it stands below  (also k and j)
 enter       the lower part on the whole screen, and back
 /           show only rows with a word; enter keeps it, escape ends it
 s           sort by the next column; the name is in the second line
 t           tasks: as a tree of what awaits what, or grouped
 space       pause and go on
 q           quit

 BLOCKED  share of the last 10 s in which it was blocked, for 0.1 s or more
 LAG P99  how long one callback in a hundred had to wait for the loop
 UTIL     share of the time in which the loop was not idle
 QUEUE    jobs that wait for a thread of an executor
 !        blocked now, or jobs wait
 STUCK    it is silent: C code holds the GIL. Shown is what it published last"""


class Help(ModalScreen[None]):
    """The keys, over everything else."""

    DEFAULT_CSS = "Help { background: ansi_default; } Help > Static { width: 100%; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", show=False)]

    def compose(self) -> ComposeResult:
        """Make the page."""
        yield Static(TEXT, markup=False)

    def on_key(self) -> None:
        """Go back at any key."""
        if self.is_current:  # a second key may be on its way already
            self.dismiss()
