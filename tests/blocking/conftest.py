"""Each test of what is concluded begins with nothing counted, and nothing left to tell."""

import pytest


@pytest.fixture(autouse=True)
def from_nothing(clean_metrics, nothing_to_tell) -> None:
    """As in a process where no loop has run before."""
