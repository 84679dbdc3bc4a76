"""Install Arize Phoenix, an independent store of traces, into `.venv-phoenix`: tests read spans back from it.

    python3 tools/phoenix.py

It gets an environment of its own, because it needs other versions of many packages that the tests use. obsloop is not
in it, since it only sends spans to Phoenix. Takes about a minute, later no time. Standard library only.
"""

# ruff: noqa: S603  (it runs the interpreter that runs it)

import os
import subprocess
import sys

import environment

FOLDER = os.path.join(environment.ROOT, ".venv-phoenix")
WANTED = "arize-phoenix==20.26.1"
"""Pinned: the tests read its answers, and it changes often."""


def main() -> None:
    """Make the environment. Exit with a message if that fails."""
    note = os.path.join(FOLDER, "installed.txt")
    if os.path.exists(note):
        with open(note) as file:
            if file.read() == WANTED:
                return
    python = os.path.join(FOLDER, "bin", "python")
    environment.create(FOLDER, python)
    print(f"Installing {WANTED} into {FOLDER} ...", flush=True)
    if subprocess.call([*environment.pip_of(python), "install", "--quiet", "--only-binary=:all:", WANTED]):
        sys.exit(f"{FOLDER}: the installation failed; pip says why above.")
    with open(note, "w") as file:
        file.write(WANTED)


if __name__ == "__main__":
    main()
