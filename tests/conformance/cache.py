"""Keeps the stock side's results on disk, so that a repeated run costs only our side."""

import hashlib
import json
import sys
from pathlib import Path

from processes import HERE, REPOSITORY, ModuleRun

DEFAULT_FOLDER = REPOSITORY / ".cache" / "conformance"


class StockCache:
    """One file for each interpreter build and each version of the code that runs the tests."""

    def __init__(self, folder: Path) -> None:
        key = hashlib.sha256(f"{sys.version} {sys.executable}".encode())
        for source in ("child.py", "processes.py", "replace.py"):
            key.update((HERE / source).read_bytes())
        version = ".".join(map(str, sys.version_info[:3]))
        self.path = folder / f"stock-{sys.implementation.name}-{version}-{key.hexdigest()[:12]}.json"

    def load(self) -> dict[str, ModuleRun]:
        """Results by module; empty when there are none yet."""
        if not self.path.exists():
            return {}
        data = json.loads(self.path.read_text())
        return {module: ModuleRun.from_json(run) for module, run in data.items()}

    def save(self, runs: dict[str, ModuleRun]) -> None:
        """Add these modules' results. Whole modules only: a part of one would hide the rest."""
        merged = {**self.load(), **runs}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({module: run.to_json() for module, run in merged.items()}))
        partial.replace(self.path)
