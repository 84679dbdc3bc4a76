"""The build of the wheel (hatch_build.py), tried on a copy of the project whose compiled core is one line long."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .support import LIMIT

ROOT = Path(__file__).resolve().parents[1]
CORE = Path("obsloop", "hotpath", "compiled", "core.pyx")
pytestmark = pytest.mark.once


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of what the build reads, with a core that compiles in a second."""
    folder = tmp_path / "project"
    (folder / CORE.parent).mkdir(parents=True)
    (folder / "exporters" / "obsloop_exporters").mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "obsloop/_version.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / CORE).write_text("answer = 42\n")
    return folder


def build(project: Path) -> subprocess.CompletedProcess[str]:
    """Build the wheel into `dist`, with a temporary folder of its own beside the project."""
    temporary = project.parent / "temporary"
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OBSLOOP_")}
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"], cwd=project,
        env=kept | {"TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


def left(project: Path) -> list[str]:
    """What the build has left in the temporary folder."""
    return sorted(path.name for path in (project.parent / "temporary").iterdir())


def test_a_build_leaves_nothing_in_the_temporary_folder(project):
    """The folder in which the core is compiled is gone when the wheel is written, and the wheel is complete."""
    done = build(project)
    assert done.returncode == 0, done.stderr
    (wheel,) = (project / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("obsloop/hotpath/compiled/core.") for name in names), done.stderr
    assert left(project) == []


def test_a_build_that_fails_leaves_nothing_either(project):
    """The core does not compile: the wheel is pure, the message says so, and the folder is gone."""
    (project / CORE).write_text("this is no program\n")
    done = build(project)
    assert done.returncode == 0, done.stderr
    assert "the compiled core could not be built" in done.stdout + done.stderr
    assert left(project) == []
