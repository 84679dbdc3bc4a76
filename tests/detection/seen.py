"""Runs the cases in processes of their own, one after another, and knows where in the source a block was put."""

import ast
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.detection import cases
from tests.hotpath.support import BUILT
from tests.support import LIMIT

CORES = ("compiled", "pure") if BUILT or os.environ.get("TESTS_REQUIRE_COMPILED") else ("pure",)
"""The cores that there are here; where the compiled one must be there, its absence is a failure."""

_TRIES = 3
_MAX_WAITED = 0.008
"""Seconds on the run queue: with a tenth of 0.1 s the machine has its part in a block, and that is then its cause."""
_MAX_WATCHDOG_WAITED = 0.001
"""Seconds on the run queue of the watchdog: one that is late by 2 ms may not know why the loop is. A part
of the 2 ms is the precision of a timed wait."""
_MAX_LATE = 0.02
"""Seconds from the threshold to the first sight; for the GIL the watchdog waits 5 ms."""
_THRESHOLD = 0.1

THE_MACHINES = {"off_cpu", "unknown"}
"""The causes of what is not the program's doing."""

Place = tuple[str, int, str]
"""File, line and function, as in a stack."""


@dataclass(frozen=True)
class Seen:
    """What one process saw and was told."""

    case: cases.Case
    way: str
    core: str
    began: float
    ended: float
    waited: float
    """How long the machine kept the program waiting, until the end of the block: others had the processors."""
    watchdog_waited: float
    """How long the machine kept the watchdog waiting, until shortly after the block."""
    epoch: float
    slow: list[list[Any]]
    """Of the figures: [name, number] of slow callbacks."""
    episodes: dict[str, int]
    """Of the figures: the loop's blocks, by cause."""
    events: list[dict[str, Any]] = field(repr=False)

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The events of this type."""
        return [event for event in self.events if event["type"] == kind]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of this type; without those that are not of the block, and that the machine was the cause of."""
        return [event for event in self.all(kind) if event["cause"] not in THE_MACHINES or self._overlaps(event)]

    def the(self, kind: str) -> dict[str, Any]:
        """The one event of this type."""
        found = self.told(kind)
        assert len(found) == 1, f"expected one {kind}, got {len(found)}: {self.events}"
        return found[0]

    def _overlaps(self, event: dict[str, Any]) -> bool:
        began = event["started_at"] - self.epoch
        return began < self.ended and began + event["duration"] > self.began

    @property
    def duration(self) -> float:
        """Seconds of the block."""
        return self.ended - self.began

    @property
    def cause(self) -> str:
        """What was put in."""
        return self.case.cause or cases.CAUSES[self.way]

    @property
    def disturbed(self) -> bool:
        """Whether the machine had its part: the program waited for a processor, or the watchdog, or both stopped."""
        late = [event["duration"] - _THRESHOLD for event in self.told("LoopBlocked")]
        return self.waited > _MAX_WAITED or (not self.case.unseen and max(late, default=0) > _MAX_LATE)

    @property
    def causes(self) -> set[str]:
        """What may be said of the block: where the machine kept only the watchdog waiting, that it does not know."""
        if self.disturbed:
            return {self.cause, *THE_MACHINES}
        return {self.cause, "unknown"} if self.watchdog_waited > _MAX_WATCHDOG_WAITED else {self.cause}


@functools.cache
def run(name: str, way: str, core: str) -> Seen:
    """Run a case; once more, and once more, where the machine disturbed it."""
    seen = _run(name, way, core)
    for _ in range(_TRIES - 1):
        if not (seen.disturbed or seen.watchdog_waited > _MAX_WATCHDOG_WAITED):
            break
        seen = _run(name, way, core)
    return seen


def _run(name: str, way: str, core: str) -> Seen:
    result = in_a_process("tests.detection.child", name, way, OBSLOOP_PURE="1" if core == "pure" else "")
    assert result.pop("core") == core
    return Seen(case=cases.POSSIBLE[name], way=way, core=core, **result)


def in_a_process(module: str, *args: str, timeout: float = LIMIT, **environ: str) -> Any:
    """What the program `module` prints, as JSON; it must succeed, and say nothing on stderr."""
    env = {k: v for k, v in os.environ.items() if k == "OBSLOOP_PURE" or not k.startswith(("PYTHON", "OBSLOOP_"))}
    env["PYTHONPATH"] = os.pathsep.join(p for p in [str(Path(__file__).parents[2]), *sys.path] if p)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *args],
        env=env | environ, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


# ---- the source ------------------------------------------------------------------------------------------------------

_FILE = cases.__file__


@functools.cache
def _nodes(filename: str) -> dict[str, ast.AST]:
    """The functions of a file, and the module itself."""
    module = ast.parse(Path(filename).read_text())
    found: dict[str, ast.AST] = {"<module>": module}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[prefix + child.name] = child

    visit(module, "")
    return found


def definition(function: str) -> tuple[str, int]:
    """File and line of a function of `cases`."""
    return _FILE, _nodes(_FILE)[function].lineno


def calls(case: cases.Case) -> list[Place]:
    """Where the case calls `block()`; it need not."""
    function = case.through or case.runs
    lines = [
        node.lineno for node in ast.walk(_nodes(_FILE).get(function, ast.Pass()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "block"
    ]  # fmt: skip
    return [(_FILE, line, function.rpartition(".")[2]) for line in lines]


def block_lines(case: cases.Case, way: str) -> list[Place]:
    """The lines of the block itself: those of `with lasting():`."""
    filename, function = _FILE, way if calls(case) else case.runs
    if case.through == "slow_module":
        filename, function = str(Path(_FILE).with_name("slow_module.py")), "<module>"
    (block,) = (node for node in ast.walk(_nodes(filename)[function]) if isinstance(node, ast.With))
    return [(filename, line, function) for line in range(block.body[0].lineno, block.body[-1].end_lineno + 1)]
