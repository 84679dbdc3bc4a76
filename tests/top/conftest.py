"""A folder for groups of the tests' own, so that no other process of this machine is in a reading."""

import tempfile
from pathlib import Path

import pytest

from obsloop.top import groups
from tests.group.workers import Group


@pytest.fixture
def place(monkeypatch):
    """A folder with a short path: sockets in it have names of at most 107 bytes. Only groups in it are found."""
    with tempfile.TemporaryDirectory(prefix="obsloop") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        monkeypatch.setattr(groups, "places", lambda: [str(Path(path) / "obsloop")])
        yield Path(path)


@pytest.fixture
def workers(place):
    """Two processes of one group."""
    found = Group(place, 2)
    yield found
    found.close()
