"""Draw a profile as a flame graph: SVG without a script, in which each frame is a link that zooms in on it.

So it works with a keyboard and on a phone, and the page's policy lets nothing run. Callers are above what they call.
"""

import hashlib
from collections.abc import Callable
from html import escape

from obsloop.profile.data import NOT_SAMPLED, OTHERS, Frame, Profile
from obsloop.service import source, text
from obsloop.service.pages import clean

MAX_SHOWN = 1_500
"""Frames on one page."""
LEAST = 0.002
"""The share of the width below which a frame is not drawn."""
_NARROW = 0.12
"""Below this share, a frame has no text on a narrow screen."""
_TEXT_FROM = 0.03
_ROW = 24


class Node:
    """A function's line below one chain of callers."""

    __slots__ = ("children", "frame", "key", "ns", "parent", "self_ns")

    def __init__(self, frame: Frame, parent: "Node | None") -> None:
        self.frame = frame
        self.parent = parent
        above: str = parent.key if parent is not None else ""
        path = f"{above}\n{frame[0]}\n{frame[2]}".encode("utf-8", "replace")
        self.key: str = hashlib.blake2s(path, digest_size=6).hexdigest()
        """The same in each answer, so that a link to it lasts."""
        self.ns = self.self_ns = 0
        self.children: dict[Frame, Node] = {}


def tree(profile: Profile) -> Node:
    """Return the root of the tree of all stacks."""
    root = Node(("all", "", 0, False), None)
    frames: list[Frame] = [(str(f[0]), str(f[1]), int(f[2]), bool(f[3])) for f in profile["frames"]]
    for sample in profile["samples"]:
        node = root
        node.ns += sample["ns"]
        for number in sample["stack"]:
            frame = frames[number]
            child = node.children.get(frame)
            if child is None:
                child = node.children[frame] = Node(frame, node)
            node = child
            node.ns += sample["ns"]
        node.self_ns += sample["ns"]
    return root


def find(root: Node, key: str) -> Node:
    """Return the node with this key, or the root if it has gone."""
    rest = [root]
    while rest:
        node = rest.pop()
        if node.key == key:
            return node
        rest += node.children.values()
    return root


def svg(root: Node, zoomed: Node, link: Callable[[str], str]) -> str:
    """Return the flame graph below ``zoomed``, with its callers above it. ``link`` makes the URL of a key."""
    above: list[Node] = []
    node = zoomed.parent
    while node is not None:
        above.insert(0, node)
        node = node.parent
    parts = [_box(node, 0.0, 1.0, y, root, link, "past") for y, node in enumerate(above)]
    rows = [(zoomed, 0.0)]
    y, left_out = len(above), 0
    while rows:
        below: list[tuple[Node, float]] = []
        for node, left in rows:
            if len(parts) >= MAX_SHOWN:
                left_out += 1
                continue
            parts.append(_box(node, left, node.ns / zoomed.ns, y, root, link, _kind(node.frame)))
            x = left
            for child in sorted(node.children.values(), key=lambda child: -child.ns):
                if child.ns >= LEAST * zoomed.ns:
                    below.append((child, x))
                x += child.ns / zoomed.ns
        rows = below
        y += 1
    more = f"<p>{left_out} short frames are not drawn. Zoom in to see them.</p>" if left_out else ""
    head = f'<svg class="flame" height="{y * _ROW}" role="group" aria-label="Flame graph">'
    return "\n".join([head, *parts, f"</svg>{more}"])


def _box(node: Node, x: float, width: float, y: int, root: Node, link: Callable[[str], str], kind: str) -> str:
    function, file, line, _ = node.frame
    where = source.where(file, line)
    whole = f"{text.seconds(node.ns / 1e9)}, {text.percent(node.ns / root.ns)}"
    title = escape(f"{clean(function)} {where}\n{whole}, itself {text.seconds(node.self_ns / 1e9)}")
    label = escape(_short(function, line)) if width >= _TEXT_FROM else ""
    small = " s" if width < _NARROW else ""
    return (
        f'<a href="{escape(link(node.key))}"><svg x="{x:.3%}" y="{y * _ROW}" width="{width:.3%}" height="{_ROW - 1}">'
        f'<title>{title}</title><rect class="{kind}" width="100%" height="100%"/>'
        f'<text class="{kind}{small}" x="4" y="16">{label}</text></svg></a>'
    )


def _kind(frame: Frame) -> str:
    if frame[0] in (NOT_SAMPLED[0], OTHERS[0]) or not frame[1]:
        return "none"
    return "own" if frame[3] else "lib"


def _short(function: str, line: int) -> str:
    """Return the function without its package, and its line."""
    parts = clean(function).split(".")
    name = ".".join(parts[-2:]) if not function.startswith("(") else clean(function)
    return f"{name}:{line}" if line else name
