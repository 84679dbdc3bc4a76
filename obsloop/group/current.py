"""Which group this process is in. Apart from the rest, which a program without a group does not load."""

from __future__ import annotations

from typing import Any

from obsloop.base.fork import reset_in_child

member: Any = None
"""This process as a ``Member`` of its group (``membership.py``, which sets it); None if it is in none."""


@reset_in_child
def forked() -> None:
    """Forget in a forked child the parent's group: the child joins it anew, with a slot of its own."""
    global member  # noqa: PLW0603 - a process is in one group
    member = None
