"""Find interpreters to test the project on: one for each minor version from 3.11 to 3.15.

In this order: the one that runs this; pyenv's, newest patch; python3.N on PATH; and for the newest versions
`../shared/tools/get-python`, if that script exists: it unpacks one under .pythons/, which git ignores.
"""

# ruff: noqa: S603, S607  (it runs interpreters, and tools by the name that they have on PATH)

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINORS = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))
#: The versions to get by get-python; machines have the older ones.
_GETTABLE = ((3, 14), (3, 15))
_GET_PYTHON = ROOT.parent / "shared" / "tools" / "get-python"

Minor = tuple[int, int]


def find(wanted: tuple[Minor, ...] = MINORS) -> dict[Minor, Path]:
    """Return an interpreter for each of the `wanted` versions that is found, in their order."""
    found = {}
    for minor in wanted:
        for candidate in (*_machine(), *_pyenv(minor), *_on_path(minor), *_unpacked(minor)):
            if version_of(candidate) == minor:
                found[minor] = candidate
                break
    return found


def version_of(python: Path) -> Minor | None:
    """Return major and minor version; None if it cannot run, such as a pyenv shim of a version that is not selected."""
    try:
        result = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        major, minor = map(int, result.stdout.split())
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return major, minor


def compile_variables(python: Path) -> dict[str, str]:
    """Return variables for building the compiled core: the place of the headers, if `python` was only unpacked."""
    root = python.parents[2] / "root" / "usr" / "include"
    version = version_of(python)
    if version is None or not root.is_dir():
        return {}
    return {"CFLAGS": f"-I {root} -I {root / f'python{version[0]}.{version[1]}'}"}


def _machine() -> list[Path]:
    return [Path(sys.executable)]


def _pyenv(minor: Minor) -> list[Path]:
    try:
        result = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
        root = Path(result.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        root = Path.home() / ".pyenv"
    name = re.compile(rf"{minor[0]}\.{minor[1]}\.(\d+)")  # no pre-release, no free-threaded build
    found = [(int(match[1]), path) for path in root.glob("versions/*") if (match := name.fullmatch(path.name))]
    return [path / "bin" / "python" for _, path in sorted(found, reverse=True)]


def _on_path(minor: Minor) -> list[Path]:
    path = shutil.which(f"python{minor[0]}.{minor[1]}")
    return [Path(path)] if path else []


def _unpacked(minor: Minor) -> list[Path]:
    if minor not in _GETTABLE or not _GET_PYTHON.exists():
        return []
    version = ".".join(map(str, minor))
    folder = ROOT / ".pythons" / version
    python = folder / "venv" / "bin" / "python"
    if version_of(python) != minor:
        print(f"Unpacking Python {version} into {folder.relative_to(ROOT)} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # get-python would not finish what an interrupted run has left
        subprocess.run([_GET_PYTHON, version, folder], check=False, stdin=subprocess.DEVNULL)
    return [python]


if __name__ == "__main__":
    for minor, python in find().items():
        print(".".join(map(str, minor)), python)
