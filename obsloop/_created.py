"""Where tasks are created: a sample."""

from __future__ import annotations

from typing import Any

MASK = 63
"""One task in 64 is looked at."""


def sample(loop: Any, task: Any) -> None:
    """``task`` was just created by the caller of the loop's ``create_task``."""
