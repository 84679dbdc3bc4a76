"""Grafana's own published types take the dashboards, and its own models lose nothing of them."""

import json
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


def compile_board(folder: Path, board: dict) -> str:
    """What tsc says about `board` as a literal of type Dashboard: a field that is not known is an error then."""
    text = json.dumps(board, indent=1)
    # The one enum among our fields; JSON has its value, and TypeScript wants its name.
    text = text.replace('"mode": "absolute"', '"mode": ThresholdsMode.Absolute')
    source = f"import {{ Dashboard, ThresholdsMode }} from '{SCHEMA}';\nexport const board: Dashboard = {text};\n"
    (folder / "board.ts").write_text(source)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "node", "--target", "es2020"]
    return run([str(folder / "node_modules/.bin/tsc"), *options, "board.ts"], folder).stdout


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_grafanas_types_take_it(compiler, path):
    """Compiled against the published types; and the judge is awake: a wrong type and an unknown field are refused."""
    board = json.loads(path.read_text())
    assert compile_board(compiler, board) == ""
    assert "TS2322" in compile_board(compiler, {**board, "refresh": 5})
    assert "TS2353" in compile_board(compiler, {**board, "nonsense": True})


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
