"""Make an environment and install the project into it, editable, with extras.

    python3 tools/environment.py DIR EXTRA [EXTRA ...]

It is for the interpreter that runs this. Quick if there is nothing to do: the environment is made again only for
another interpreter, updated if pyproject.toml or the compiled core has changed, and extended if more extras are given.
Standard library only. Interpreters that are too old can read this file, so that it can print the error message.
"""

# ruff: noqa: S603  (it runs the interpreter that runs it)

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)


def main(folder: str, extras: list[str]) -> None:
    """Make or update the environment in `folder`. Exit with a message if that fails."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"obsloop needs Python 3.11 or newer, but {sys.executable} is {sys.version.split()[0]}.\n"
            "Choose another: make ... PYTHON=python3.12"
        )
    python = os.path.join(folder, "bin", "python")
    note = os.path.join(folder, "obsloop-environment.json")
    if identity(python) != identity(sys.executable):
        create(folder, python)
    have = read(note)
    want = {"project": project(), "extras": sorted({*extras, *have.get("extras", ())})}
    if have == want:
        return
    target = f"{ROOT}[{','.join(want['extras'])}]"
    print(f"Installing obsloop[{','.join(want['extras'])}] into {folder} ...", flush=True)
    if subprocess.call([*pip_of(python), "install", "--quiet", "--editable", target]):
        sys.exit(f"{folder}: the installation failed; pip says why above.")
    with open(note, "w") as file:
        json.dump(want, file, indent=1)


def create(folder: str, python: str) -> None:
    """Make a new environment. If the interpreter has no ensurepip and no pip (Debian's), install a pip."""
    print(f"Making the environment {folder} (Python {sys.version.split()[0]}) ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    bring = False
    if can(sys.executable, "ensurepip"):
        arguments = [folder]
    elif can(sys.executable, "pip"):
        arguments = ["--without-pip", folder]
    else:
        arguments = ["--without-pip", folder]
        bring = True
    if subprocess.call([sys.executable, "-m", "venv", *arguments]) or not os.path.exists(python):
        sys.exit(f"{sys.executable} -m venv {folder} failed.")
    if bring:
        bring_pip(folder, python)


def bring_pip(folder: str, python: str) -> None:
    """Put a pip into an environment whose interpreter has none."""
    import parts  # noqa: PLC0415 - an interpreter that is too old cannot read it

    try:
        pip = parts.pip()
    except parts.NotToBeHad as reason:
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(
            f"{sys.executable} has neither ensurepip nor pip, but an environment needs one of them: {reason}\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        )
    if subprocess.call([python, pip, "install", "--quiet", "--upgrade", "pip"]):
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(f"{folder}: pip could not be installed; it says why above.")


def pip_of(python: str) -> list[str]:
    """Return the command that installs into an environment: its own pip, else that of this interpreter."""
    return [python, "-m", "pip"] if can(python, "pip") else [sys.executable, "-m", "pip", "--python", python]


def identity(python: str) -> bytes | None:
    """Return which interpreter it is, the same for all its environments; None if there is none."""
    try:
        return subprocess.check_output([python, "-c", "import sys; print(sys.base_prefix, sys.version)"])
    except (OSError, subprocess.CalledProcessError):
        return None


def can(python: str, module: str) -> bool:
    """Return whether the interpreter has the module."""
    return subprocess.call([python, "-c", "import " + module], stderr=subprocess.DEVNULL) == 0


def project() -> str:
    """Return a digest of what the installation depends on: the project's place, declarations and compiled sources."""
    digest = hashlib.sha256(ROOT.encode())
    package = os.path.join(glob.escape(ROOT), "obsloop", "**")
    compiled = [
        path for kind in ("*.p[xy][dxi]", "*.h") for path in glob.glob(os.path.join(package, kind), recursive=True)
    ]
    for path in [os.path.join(ROOT, "pyproject.toml"), os.path.join(ROOT, "hatch_build.py"), *sorted(compiled)]:
        if os.path.exists(path):
            with open(path, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def read(note: str) -> dict[str, Any]:
    """Return what is installed in the environment; empty if not known."""
    try:
        with open(note) as file:
            found: dict[str, Any] = json.load(file)
            return found
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
