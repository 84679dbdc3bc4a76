"""Widgets that show lines of text. Only lines that have changed are drawn again, so a refresh costs little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from obsloop.service import text
from obsloop.top import cells
from obsloop.top.cells import Row, Table

# Without colour the words and marks say the same: these only help the eye.
PLAIN = Style()
TITLE = Style(bold=True)
CHOSEN = Style(reverse=True)
ALARM = Style(bold=True, color="red")
DIM = Style(dim=True)

Line = tuple[str, Style]


class Lines(ScrollView, can_focus=True):
    """Lines that can be scrolled. The first `fixed` of them stay at the top."""

    DEFAULT_CSS = "Lines { scrollbar-size: 1 1; scrollbar-gutter: stable; overflow-x: hidden; overflow-y: auto; }"
    fixed = 0

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines in the place of those before."""
        before, self._lines = self._lines, list(lines)
        if len(before) != len(lines):
            self.virtual_size = Size(self.scrollable_content_region.width, len(lines))
        top = self.scroll_offset.y
        width, height = self.size
        for y in range(height):
            i = self._index(y, top)
            old = before[i] if i < len(before) else None
            if old != (self._lines[i] if i < len(lines) else None):
                self.refresh(Region(0, y, width, 1))

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        i = self._index(y, self.scroll_offset.y)
        words, style = self._lines[i] if i < len(self._lines) else ("", PLAIN)
        width = self.scrollable_content_region.width
        return Strip([Segment(text.cut(words, width), style)]).adjust_cell_length(width, style)

    def _index(self, y: int, top: int) -> int:
        return y if y < self.fixed else y + top


class RowList(Lines):
    """A table, in which one row is chosen."""

    fixed = 1
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
    ]

    class Chosen(Message):
        """Another row was chosen."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._table = Table((), [])
        self._at = 0

    @property
    def chosen(self) -> Row | None:
        """The chosen row; None if there are no rows."""
        rows = self._table.rows
        return rows[self._at] if self._at < len(rows) else None

    def show_table(self, table: Table, *, anew: bool) -> None:
        """Show a table. The chosen row stays chosen, unless this is `anew`: then the first one is."""
        chosen = self.chosen
        self._table = table
        keys = [row.key for row in table.rows]
        if anew or chosen is None:
            self._at = 0
            self._go_to(1 if self.chosen is not None and self.chosen.head and len(keys) > 1 else 0)
        elif chosen.key in keys:
            self._at = keys.index(chosen.key)
        else:
            self._at = max(0, min(self._at, len(keys) - 1))
        self._draw()
        if anew:
            self.scroll_to(0, 0, animate=False)

    def action_move(self, by: int) -> None:
        """Choose a row above or below."""
        self._go_to(self._at + by)
        self._draw()
        self.post_message(self.Chosen())

    def action_page(self, by: int) -> None:
        """Choose a row a screen above or below."""
        self.action_move(by * max(1, self.size.height - 2))

    def on_resize(self, event: Resize) -> None:
        """Lay the columns out for another width."""
        del event
        self._draw()

    def _go_to(self, at: int) -> None:
        self._at = max(0, min(at, len(self._table.rows) - 1))
        top, room = self.scroll_offset.y, max(1, self.size.height - self.fixed)
        if self._at < top:
            self.scroll_to(0, self._at, animate=False)
        elif self._at >= top + room:
            self.scroll_to(0, self._at - room + 1, animate=False)

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if not width:  # it has no place on the screen yet
            return
        table = self._table
        if not table.rows:
            self.show([("", TITLE), (table.empty, PLAIN)])
            return
        title, *lines = cells.lines(table, width)
        styled = [
            (line, CHOSEN if i == self._at else TITLE if row.head else ALARM if row.alarm else PLAIN)
            for i, (line, row) in enumerate(zip(lines, table.rows, strict=True))
        ]
        self.show([(title, TITLE), *styled])
