"""The programs of others that the tests need: what happens where one cannot be had (tools/parts.py, tests/parts.py)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from . import parts
from .support import LIMIT

pytestmark = pytest.mark.once


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the tools, which unpack beside their own folder."""
    (tmp_path / "tools").mkdir()
    for path in (parts.ROOT / "tools").glob("*.py"):
        shutil.copy(path, tmp_path / "tools")
    return tmp_path


def bring(project: Path, *names: str, path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the tool where only the programs in `path` exist."""
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "PATH"}}
    return subprocess.run(
        [sys.executable, project / "tools" / "parts.py", *names],
        env=kept | {"PATH": str(path)} | environ, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


def test_without_debians_tools_a_part_is_noted_as_missing(project):
    """The note says which part and why. That is an error with CI=true only."""
    for environ, code in (({}, 0), ({"CI": "true"}, 1)):
        done = bring(project, "redis", path=project, **environ)
        assert done.returncode == code, done.stderr
        assert "redis cannot be had: it is not on PATH, and there is no apt-get" in done.stderr
        assert list(json.loads((project / ".parts" / "missing.json").read_text())) == ["redis"]


def test_what_is_on_path_is_used(project):
    """Nothing is unpacked, and a note from before goes."""
    bring(project, "redis", path=project)
    own = project / "bin"
    own.mkdir()
    (own / "redis-server").write_text("#!/bin/sh\n")
    (own / "redis-server").chmod(0o755)
    done = bring(project, "redis", path=own)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((project / ".parts" / "missing.json").read_text()) == {}
    assert not (project / ".parts" / "redis").exists()


def test_a_test_without_its_part_is_left_out_and_counted(tmp_path, monkeypatch):
    """Left out where the part cannot be had; a failure with CI set, and where nothing tried to bring it."""
    monkeypatch.setattr(parts, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.fail.Exception, match="redis` brings it"):
        parts.needed("redis-server", "redis")
    (tmp_path / "missing.json").write_text(json.dumps({"redis": "no mirror answers"}))
    with pytest.raises(pytest.skip.Exception) as skipped:
        parts.needed("redis-server", "redis")
    reason = f"Skipped: {skipped.value}"
    assert parts.left_out([reason, "Skipped: another reason", reason]) == ["redis: 2 tests left out. no mirror answers"]
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="redis cannot be had: no mirror answers"):
        parts.needed("redis-server", "redis")


def test_a_copied_part_still_starts(tmp_path, monkeypatch):
    """Where another user may not enter the project's folder, a server's files are copied, wrapper included."""
    project = tmp_path / "project"
    for folder in ("redis/root", "redis/bin", "bin"):
        (project / folder).mkdir(parents=True)
    (project / "redis" / "root" / "answer").write_text("42")
    wrapper = project / "redis" / "bin" / "redis-server"
    wrapper.write_text('#!/bin/sh\nroot=$(dirname "$(dirname "$(readlink -f "$0")")")/root\nexec cat "$root/answer"\n')
    wrapper.chmod(0o755)
    (project / "bin" / "redis-server").symlink_to("../redis/bin/redis-server")
    monkeypatch.setattr(parts, "FOLDER", project)
    place = tmp_path / "place"
    place.mkdir()
    project.chmod(0o700)
    found = parts.reachable(str(project / "bin" / "redis-server"), os.getuid() + 1, place)
    assert Path(found).is_relative_to(place)
    assert subprocess.check_output([found], text=True) == "42"
    assert parts.reachable("/bin/sh", os.getuid() + 1, place) == "/bin/sh"
