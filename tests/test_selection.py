"""Which tests share a process: what a file makes once, one worker of pytest-xdist makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
CONFTEST = """
import pytest
from tests import selection

def pytest_configure(config):
    config.pluginmanager.register(selection)

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    selection.keep_together(items)
"""
TESTS = """
import os, pathlib, pytest

@pytest.fixture(scope="module")
def shared():
    with pathlib.Path("made").open("a") as file:
        print(__name__, os.getpid(), file=file)

@pytest.mark.parametrize("number", range(6))
def test_it(shared, number):
    pass
"""


def test_what_a_file_shares_is_made_once(tmp_path):
    """Three files of six tests, three workers: each file's own thing is made once."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    names = ["test_a", "test_b", "test_c"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadgroup", "-p", "no:cacheprovider", "."],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(line.split()[0] for line in (tmp_path / "made").read_text().splitlines()) == names
