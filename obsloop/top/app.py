"""The application in the terminal. A thread reads the processes, so a slow answer never stops the keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.message import Message
from textual.widgets import Input, Static

from obsloop.base import clock
from obsloop.service import text
from obsloop.top import lists, tasks
from obsloop.top.cells import Table
from obsloop.top.help import Help
from obsloop.top.lines import DIM, PLAIN, Lines, RowList
from obsloop.top.overview import ORDERS, Overview
from obsloop.top.shapes import text as shown
from obsloop.top.source import TICK_SECONDS, Reading, Source, SourceError

VIEWS = ("Overview", "Culprits", "Tasks", "Executors", "Lints")
TASKS = 2
TASK_SECONDS = 1.0
"""The pause between two listings of tasks."""
KEYS = "1-5 view  / filter  s sort  t tree  enter details  space pause  ? help  q quit"
MAX_PARTS = 10
"""A line of the details that is too long is continued in so many lines."""
_BARS = 3  # title, views, keys


class Top(App[int]):
    """What `obsloop top` shows."""

    CSS = """
    Screen { background: ansi_default; color: ansi_default; layout: vertical; }
    Static { height: 1; width: 100%; }
    #views { text-style: bold; }
    #rows { height: 1fr; }
    #detail { height: 9; border-top: solid ansi_default; }
    #filter { height: 1; border: none; padding: 0; display: none; background: ansi_default; color: ansi_default; }
    #keys { text-style: reverse; }
    Help Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(i + 1), f"view({i})", show=False) for i in range(len(VIEWS))),
        Binding("tab,right", "next(1)", show=False, priority=True),
        Binding("shift+tab,left", "next(-1)", show=False, priority=True),
        Binding("slash", "filter", show=False),
        Binding("s", "sort", show=False),
        Binding("t", "tree", show=False),
        Binding("space", "pause", show=False),
        Binding("enter", "zoom", show=False),
        Binding("escape", "leave", show=False),
        Binding("question_mark,h,f1", "help", show=False),
        Binding("q,ctrl+c", "quit", show=False),
    ]
    ENABLE_COMMAND_PALETTE = False

    class Read(Message):
        """There is a new reading."""

        def __init__(self, reading: Reading) -> None:
            super().__init__()
            self.reading = reading

    def __init__(self, source: Source) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self._source = source
        self._reading = Reading([], 0.0)
        self._overview = Overview()
        self._view = 0
        self._orders = [0] * len(VIEWS)
        self._words = [""] * len(VIEWS)
        self._tree = False
        self._zoomed = False
        self._paused = threading.Event()
        self._ended = threading.Event()
        self._wanted = threading.Event()
        self._bars: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        """Make the parts of the screen."""
        yield Static("", id="title", markup=False)
        yield Static("", id="views", markup=False)
        yield RowList(id="rows")
        yield Lines(id="detail")
        yield Input(id="filter", placeholder="rows with this word; enter keeps it, escape ends it", compact=True)
        yield Static(KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one(RowList).focus()
        self._draw(anew=True)
        threading.Thread(target=self._read_on, name="readings", daemon=True).start()

    def on_unmount(self) -> None:
        """End the thread that reads."""
        self._ended.set()
        self._wanted.set()

    def _read_on(self) -> None:
        """Read again and again. Runs in a thread of its own, and ends with the application."""
        listed: Reading | None = None
        listed_at = 0.0
        while not self._ended.is_set():
            began = clock.seconds()
            wants_tasks = self._view == TASKS and (listed is None or began - listed_at >= TASK_SECONDS)
            try:
                reading = self._source.read(tasks=wants_tasks)
            except SourceError as error:
                reading = Reading([], time.time(), str(error))
            except Exception as error:  # an answer of an unknown form: say so, and go on with the next one
                reading = Reading([], time.time(), f"the answers cannot be read: {shown(repr(error))}")
            if wants_tasks:
                listed, listed_at = reading, began
            elif self._view != TASKS:
                listed = None
            elif listed is not None:  # the tasks of half a second ago
                older = {group.name: group.tasks for group in listed.groups}
                for group in reading.groups:
                    group.tasks = older.get(group.name)
            if not self._ended.is_set() and not self._paused.is_set():
                self.post_message(self.Read(reading))
            self._wanted.wait(max(0.05, TICK_SECONDS - (clock.seconds() - began)))
            self._wanted.clear()

    def on_top_read(self, message: Read) -> None:
        """Show a new reading."""
        self._reading = message.reading
        self._draw()

    def on_row_list_chosen(self) -> None:
        """Show what is known of another row."""
        self._draw_detail()

    def on_resize(self, event: Resize) -> None:
        """Share the screen anew."""
        del event
        self.call_after_refresh(self._draw)

    # Keys

    def action_view(self, view: int) -> None:
        """Show another view."""
        self._view = view
        self._wanted.set()
        self._draw(anew=True)

    def action_next(self, by: int) -> None:
        """Show the next view."""
        if not isinstance(self.screen, Help) and not self.query_one(Input).display:
            self.action_view((self._view + by) % len(VIEWS))

    def action_sort(self) -> None:
        """Sort by the next order."""
        self._orders[self._view] += 1
        self._draw(anew=True)

    def action_tree(self) -> None:
        """Show the tasks as a tree, or grouped."""
        if self._view == TASKS:
            self._tree = not self._tree
            self._draw(anew=True)
        else:
            self.action_view(TASKS)

    def action_pause(self) -> None:
        """Pause, or go on."""
        if self._paused.is_set():
            self._paused.clear()
            self._wanted.set()
        else:
            self._paused.set()
        self._draw()

    def action_zoom(self) -> None:
        """Give the whole screen to the details, or take it back."""
        self._zoomed = not self._zoomed
        self.query_one(RowList).display = not self._zoomed
        (self.query_one("#detail", Lines) if self._zoomed else self.query_one(RowList)).focus()
        self._draw()

    def action_leave(self) -> None:
        """End the filter, or go back from the details."""
        if self._zoomed:
            self.action_zoom()
        elif self._words[self._view]:
            self._words[self._view] = ""
            self._draw(anew=True)

    def action_filter(self) -> None:
        """Let the person type a word."""
        if self._zoomed:
            self.action_zoom()
        field = self.query_one(Input)
        field.value = self._words[self._view]
        field.display = True
        field.focus()

    def action_help(self) -> None:
        """Show all keys."""
        self.push_screen(Help())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the person types."""
        if event.input.display:
            self._words[self._view] = event.value.strip()
            self._draw(anew=True)

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self._end_typing()

    def on_key(self, event: object) -> None:
        """End typing with escape, and the filter with it."""
        if getattr(event, "key", "") == "escape" and self.query_one(Input).display:
            self._words[self._view] = ""
            self._end_typing()
            event.stop()  # type: ignore[attr-defined]

    def _end_typing(self) -> None:
        self.query_one(Input).display = False
        self.query_one(RowList).focus()
        self._draw(anew=True)

    # Drawing

    def _table(self) -> Table:
        order = self._order()
        make: Callable[[Reading, str], Table] = (
            self._overview.table,
            lists.culprits,
            tasks.tree if self._tree else tasks.grouped,
            lists.executor_table,
            lists.lints,
        )[self._view]
        table = make(self._reading, order)
        word = self._words[self._view].lower()
        if word:
            table.rows = [row for row in table.rows if row.head or word in " ".join((*row.cells, *row.detail)).lower()]
            if all(row.head for row in table.rows):
                table.rows, table.empty = [], f"No row has {word!r}. Escape ends the filter."
        return table

    def _order(self) -> str:
        orders = (ORDERS, lists.CULPRIT_ORDERS, tasks.ORDERS, lists.EXECUTOR_ORDERS, lists.LINT_ORDERS)[self._view]
        return orders[self._orders[self._view] % len(orders)]

    def _draw(self, *, anew: bool = False) -> None:
        """Show the present view of the last reading."""
        if not self.is_running or not self.query("#rows"):
            return
        table = self._table()
        self._share_screen(table)
        self.query_one(RowList).show_table(table, anew=anew)
        self._draw_detail(table)
        self._draw_bars()

    def _share_screen(self, table: Table) -> None:
        """Give the overview's table no more than it needs: what blocks a loop stands below."""
        room = self.size.height - _BARS
        detail = max(6, room - len(table.rows) - 1, room // 2) if self._view == 0 else max(6, room // 3)
        height = "1fr" if self._zoomed else str(min(detail, room - 3))
        if self._bars.get("height") != height:
            self._bars["height"] = height
            self.query_one("#detail").styles.height = height

    def _draw_detail(self, table: Table | None = None) -> None:
        chosen = self.query_one(RowList).chosen
        lines = list(chosen.detail) if chosen is not None else []
        notes = table.notes if table is not None else []
        if self._view == 0 and table is not None and not (chosen is not None and chosen.alarm):
            # What is blocked now matters more than what was blocked in the chosen row.
            for row in table.rows:
                if row.alarm:
                    lines = [*row.detail, *lines]
                    break
        width = max(20, self.size.width - 2)
        found = [(part, PLAIN) for line in lines for part in _wrapped(line, width)]
        self.query_one("#detail", Lines).show([*((note, DIM) for note in notes), *found])

    def _draw_bars(self) -> None:
        groups = self._reading.groups
        workers = [worker for group in groups for worker in group.workers]
        bad = sum(worker.status in ("blocked", "stuck", "stopped") for worker in workers)
        parts = [f"obsloop top: {self._source.title}"]
        if self._reading.at:
            parts.append(f"{len(workers)} process{'' if len(workers) == 1 else 'es'}")
            parts.append(f"{bad} BLOCKED NOW" if bad else "none blocked now")
            parts.append(time.strftime("%H:%M:%S", time.localtime(self._reading.at)))
        if self._paused.is_set():
            parts.append("PAUSED")
        title = ", ".join(parts)
        if self._reading.note:
            title = f"! {self._reading.note}"
        names = [f"[{i + 1} {name}]" if i == self._view else f" {i + 1} {name} " for i, name in enumerate(VIEWS)]
        word = self._words[self._view]
        state = f"by {self._order()}{f', with {word!r}' if word else ''}"
        self._bar("title", title)
        self._bar("views", f"{''.join(names)}  {state}")

    def _bar(self, name: str, words: str) -> None:
        """Write one of the lines at the top, if it has changed."""
        words = text.cut(words, max(20, self.size.width))
        if self._bars.get(name) != words:
            self._bars[name] = words
            self.query_one(f"#{name}", Static).update(words, layout=False)  # its size stays


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line in parts that fit."""
    parts: list[str] = []
    while line and len(parts) < MAX_PARTS:
        part = line[:width]
        while text.width(part) > width:
            part = part[:-1]
        parts.append(part)
        line = line[len(part) :]
    return parts or [""]


def show(source: Source) -> int:
    """Run the application until the person ends it. Return the exit code."""
    # Without the mouse: so the terminal's own selection works, and a place in the source can be copied.
    return Top(source).run(mouse=False) or 0
