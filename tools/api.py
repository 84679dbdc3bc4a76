"""Build the API reference from the docstrings, as HTML: `make docs`, or python tools/api.py FOLDER.

A warning is an error. pdoc shows what a module defines and what its `__all__` names. obsloop has no `__all__`: type
checkers take `import x as x` for it. So this gives it one, with the names that tests/test_public_names.py holds.
"""

import sys
import types
import warnings
from pathlib import Path

import pdoc

import obsloop

MODULES = (
    "obsloop",
    r"!obsloop\.(?!(asgi|events|testing)$)",  # no other part of obsloop: these have the public names
    "obsloop_exporters.prometheus",
    "obsloop_exporters.otel_metrics",
    "obsloop_exporters.otel_spans",
)


def public() -> list[str]:
    """Return obsloop's public names, the loop and its beginnings first."""
    first = ["run", "new_event_loop", "instrument", "Loop", "Settings", "Instrument"]
    found = {name for name, value in vars(obsloop).items() if not isinstance(value, types.ModuleType)}
    names = {name for name in found if name[0] != "_"}
    return first + sorted(names.difference(first, ["annotations"]))


def main(folder: Path) -> None:
    """Write the pages into `folder`, and check that no public name is missing."""
    obsloop.__all__ = public()  # type: ignore[attr-defined]
    warnings.simplefilter("error")
    pdoc.pdoc(*MODULES, output_directory=folder)
    page = (folder / "obsloop.html").read_text()
    missing = [name for name in public() if f'id="{name}"' not in page]
    if missing:
        sys.exit(f"{folder}: no entry for {', '.join(missing)}")
    print(folder / "index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
