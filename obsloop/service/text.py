"""Write numbers, times and tables for people: aligned text that fits a terminal of 100 columns."""

import textwrap
from collections.abc import Iterable, Sequence
from unicodedata import combining, east_asian_width

WIDTH = 100
_BARS = "▁▂▃▄▅▆▇█"
_LEAST = 6
"""No column is cut to less than this."""
_GAP = "  "


def seconds(value: float) -> str:
    """Return a duration with three digits that matter: `267 ms`, `4.02 s`, `135 s`."""
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms" if value < 0.0995 else f"{value * 1e3:.0f} ms"
    return f"{value:.2f} s" if value < 99.995 else f"{value:.0f} s"


def ago(value: float) -> str:
    """Return how long ago something was: `3 s ago`, `12 min ago`, `5 h ago`."""
    if value < 100:
        return f"{max(0.0, value):.0f} s ago"
    return f"{value / 60:.0f} min ago" if value < 6_000 else f"{value / 3_600:.0f} h ago"


def percent(share: float | None) -> str:
    """Return a share in per cent with one decimal; a dash for None."""
    return "-" if share is None else f"{share * 100:.1f} %"


def cause(name: str) -> str:
    """Return a cause as a person reads it."""
    return "cause unknown" if name == "unknown" else name.replace("_", " ")


def bars(values: Sequence[float | None], least: float, width: int = 20) -> str:
    """Return a line of bars, at most `width`, the largest values of neighbours. `least` fills a bar at least."""
    if not values:
        return ""
    top = max([least, *(value for value in values if value is not None)])
    n = min(width, len(values))
    parts = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    heights = [max((value for value in part if value is not None), default=None) for part in parts]
    return "".join(" " if h is None else _BARS[min(len(_BARS) - 1, int(h / top * len(_BARS)))] for h in heights)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "", ends: str = "") -> list[str]:
    """Return the lines of a table that is at most `WIDTH` wide: the widest columns are cut.

    The columns whose numbers are in `right` are aligned to the right. Of those in `ends` the end is kept, not the
    beginning: the name of a file is there.
    """
    cells = [head, *rows]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]
    room = WIDTH - len(_GAP) * (len(head) - 1)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    return [
        _GAP.join(
            pad(cut(cell, widths[i], end=str(i) in ends), widths[i], right=str(i) in right)
            for i, cell in enumerate(row)
        ).rstrip()
        for row in cells
    ]


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return `text` filled up with spaces."""
    spaces = " " * max(0, columns - width(text))
    return spaces + text if right else text + spaces


def cut(text: str, columns: int = WIDTH, *, end: bool = False) -> str:
    """Return what fits of `text`: its beginning, or its `end`."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - 2:
        text = text[1:] if end else text[:-1]
    return f"..{text}" if end else f"{text}.."


def wrapped(text: str) -> list[str]:
    """Return a sentence as one or more lines that fit; all but the first are indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ") or [""]


def indented(lines: Iterable[str]) -> list[str]:
    """Return the lines, two columns further to the right and cut."""
    return [cut(f"  {line}") for line in lines]


def joined(*blocks: Sequence[str]) -> str:
    """Return the blocks of lines with an empty line between two of them; empty blocks are left out."""
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
