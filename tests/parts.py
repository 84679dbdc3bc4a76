"""The programs of others that tests need: where they are, and what happens when one cannot be had.

`tools/parts.py` brings them. A test whose program could not be brought is left out, and the last lines of the run say
how many tests each missing part has cost. With CI=true, and where nothing tried to bring it, the test fails.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".parts"
LEFT_OUT = "left out, because this part cannot be had: "


def needed(program: str, part: str) -> str:
    """Return the path of a program; where it is missing, leave the test out if that is allowed, else fail."""
    # Debian keeps PostgreSQL's programs out of PATH, by version.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    found = shutil.which(program, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)]))
    if found:
        return found
    reason = missing().get(part)
    if reason is None:
        pytest.fail(f"{program} is missing: `python3 tools/parts.py {part}` brings it", pytrace=False)
    if os.environ.get("CI"):
        pytest.fail(f"{program} is missing, and {part} cannot be had: {reason}", pytrace=False)
    pytest.skip(LEFT_OUT + part)


def missing() -> dict[str, str]:
    """Return the parts that `tools/parts.py` could not bring, and why."""
    try:
        return json.loads((FOLDER / "missing.json").read_text())
    except OSError:
        return {}


def left_out(reasons: Iterable[str]) -> list[str]:
    """Return a line for each missing part: how many tests were left out, and why, from the reasons of skipped tests."""
    counts = Counter(reason.split(LEFT_OUT)[1] for reason in reasons if LEFT_OUT in reason)
    why = missing()
    return [f"{part}: {n} tests left out. {why.get(part, '')}".rstrip() for part, n in sorted(counts.items())]


def use_ours() -> None:
    """Put what `tools/parts.py` has unpacked at the end of PATH, for this process and those that it starts."""
    ours = str(FOLDER / "bin")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if ours not in folders:
        os.environ["PATH"] = os.pathsep.join([*folders, ours])


def reachable(program: str, account_id: int, folder: Path) -> str:
    """Return the program's path, or that of a copy below `folder` where the account may not enter the project's folder.

    A program of the machine is returned as it is. A part is copied as a whole; its wrappers find their files there.
    """
    real = Path(program).resolve()
    if FOLDER.resolve() not in real.parents or _may_enter(real.parent, account_id):
        return program
    part = real.relative_to(FOLDER.resolve()).parts[0]
    copy = folder / "parts" / part
    if not copy.exists():
        shutil.copytree(FOLDER / part, copy, symlinks=True)
        folder.joinpath("parts").chmod(0o755)
    return str(copy / "bin" / real.name)


def _may_enter(folder: Path, account_id: int) -> bool:
    """Whether every folder on the way lets others in, or belongs to the account."""
    for each in (folder, *folder.parents):
        status = each.stat()
        if not status.st_mode & (0o100 if status.st_uid == account_id else 0o001):
            return False
    return True
