"""Grafana's own published types take the dashboards, and its own models lose nothing of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.parts import needed

HERE = Path(__file__).resolve().parent
BOARDS = sorted((HERE.parents[1] / "dashboards" / "generated").glob("*.json"))
SCHEMA = "@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen"

pytestmark = pytest.mark.clients


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory) -> Path:
    """A folder with @grafana/schema and tsc, as the lock says."""
    npm = needed("npm", "node")
    folder = tmp_path_factory.mktemp("tsc")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    done = run([npm, "ci", "--no-audit", "--no-fund"], folder)
    assert done.returncode == 0, done.stderr
    return folder


WRONG = {"": {}, "-type": {"refresh": 5}, "-field": {"nonsense": True}}
"""What is made wrong in a board, and how its file is called then."""


@pytest.fixture(scope="module")
def complaints(compiler) -> str:
    """What tsc says about each board, and each made wrong, as literals of type Dashboard: unknown fields are errors."""
    for path in BOARDS:
        board = json.loads(path.read_text())
        for name, wrong in WRONG.items():
            text = json.dumps({**board, **wrong}, indent=1)
            # The one enum among our fields; JSON has its value, and TypeScript wants its name.
            text = text.replace('"mode": "absolute"', '"mode": ThresholdsMode.Absolute')
            source = (
                f"import {{ Dashboard, ThresholdsMode }} from '{SCHEMA}';\nexport const board: Dashboard = {text};\n"
            )
            (compiler / f"{path.stem}{name}.ts").write_text(source)
    files = [f"{path.stem}{name}.ts" for path in BOARDS for name in WRONG]
    options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "node", "--target", "es2020"]
    return run([str(compiler / "node_modules/.bin/tsc"), *options, *files], compiler).stdout


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_grafanas_types_take_it(complaints, path):
    """Compiled against the published types; and the judge is awake: a wrong type and an unknown field are refused."""
    said = {name: re.findall(rf"^{path.stem}{name}\.ts\(.* error (\w+):", complaints, re.MULTILINE) for name in WRONG}
    assert said[""] == [], complaints
    assert "TS2322" in said["-type"]
    assert "TS2353" in said["-field"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_grafanas_models_lose_nothing(path):
    """Read into grafana-foundation-sdk's models and written again: every field is there, and the same."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    board = json.loads(path.read_text())
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board)))
    assert lost(board, again, path.stem) == []


def lost(before, after, where: str) -> list[str]:
    """What of `before` is not in `after`. Defaults that a model adds are no loss."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key, value in before.items()
            for line in (lost(value, after[key], f"{where}.{key}") if key in after else [f"{where}.{key} is gone"])
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line for i, (a, b) in enumerate(zip(before, after, strict=True)) for line in lost(a, b, f"{where}[{i}]")
        ]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]
