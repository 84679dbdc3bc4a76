"""Runs test modules in child processes, each with time limits, and gathers what they wrote. Judges nothing.

A test that hangs or kills its process costs itself only: its child is started again for the tests after it.
"""

import contextlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

TEST_LIMIT_S = 40.0  # for one test; the slowest takes 3 s on an idle machine
MODULE_LIMIT_S = 1200.0  # for one child, in case the limit inside it does not work
MAX_RESTARTS = 5  # for one module; then what is left of it counts as not run

_running: set[int] = set()  # the children's process ids, which are their groups' too


@dataclass
class Outcome:
    """What became of one test; `detail` is the traceback or the reason for a skip."""

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    altered: bool = False  # left something behind: threads, children
    retries: int = 0
    ended_process: bool = False  # by a hang or a crash


@dataclass
class ModuleRun:
    """The outcomes of one module's tests on one side, and the loops that were made for them."""

    tests: dict[str, Outcome] = field(default_factory=dict)
    loops: int = 0
    ours: int = 0
    others: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ModuleRun":
        tests = {name: Outcome(**outcome) for name, outcome in data["tests"].items()}
        return cls(tests, data["loops"], data["ours"], data["others"])


@dataclass(frozen=True)
class Side:
    """One side of the comparison: the stock loop (`loop` is None) or the one named by MODULE:CLASS."""

    name: str
    loop: str | None


def all_modules() -> list[str]:
    """The names of the suite's test modules beside this interpreter, slowest first so that jobs end together."""
    try:
        import test.test_asyncio as suite
    except ImportError as error:
        raise SystemExit(
            f"{sys.executable} has no test.test_asyncio ({error}). Install the interpreter's test suite: "
            "Debian and Ubuntu have it in a package libpythonX.Y-testsuite, pyenv installs it always."
        ) from error
    names = [m.name for m in pkgutil.iter_modules(suite.__path__) if m.name.startswith("test_")]
    slowest = ["test_ssl", "test_events", "test_tasks", "test_sslproto", "test_streams", "test_sendfile"]
    return sorted(names, key=lambda name: (slowest.index(name) if name in slowest else len(slowest), name))


def run_modules(
    side: Side, modules: list[str], jobs: int, patterns: list[str], progress: Callable[[str], None]
) -> dict[str, ModuleRun]:
    """Run each module in its own child, `jobs` at a time; a test that fails is not yet tried again."""
    runs: dict[str, ModuleRun] = {}

    def one(module: str) -> None:
        runs[module] = run_module(side, module, patterns=patterns)
        progress(f"{side.name}: {module}: {len(runs[module].tests)} tests")

    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(one, modules):
            pass
    return {module: runs[module] for module in modules}


def retry(side: Side, module: str, name: str, times: int) -> Outcome | None:
    """Run one test by itself, up to `times` times, until it passes; None when it never does."""
    for attempt in range(1, times + 1):
        outcome = run_module(side, module, only=[name]).tests.get(name)
        if outcome is not None and outcome.outcome in {"passed", "expectedFailure"}:
            outcome.retries = attempt
            return outcome
    return None


def run_module(
    side: Side, module: str, *, patterns: list[str] | None = None, only: list[str] | None = None
) -> ModuleRun:
    """Run one module, or some tests of it, on one side."""
    run = ModuleRun()
    # A suite's temporary files, and its current directory, as regrtest would give it.
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as folder:
        out = Path(folder, "results.jsonl")
        log = Path(folder, "log.txt")
        command = [sys.executable, str(HERE / "child.py"), module, f"--out={out}", f"--limit={TEST_LIMIT_S}"]
        command += [f"--loop={side.loop}"] if side.loop else []
        command += [f"--match={pattern}" for pattern in patterns or ()]
        command += [f"--only={name}" for name in only or ()]
        for _ in range(MAX_RESTARTS):
            seen = out.stat().st_size if out.exists() else 0
            code = _run_child(command, folder, log)
            entries = list(_entries(out, seen))
            culprit = _fold(run, entries)
            if entries and entries[-1].get("end"):
                return run
            detail = f"the process ended ({code}) before its tests did:\n" + _tail(log)
            run.tests[culprit or f"{module} (the module)"] = Outcome("error", detail, ended_process=True)
            if culprit is None:
                return run
            with out.open("a") as file:  # so that the next child leaves it out
                file.write(json.dumps({"id": culprit}) + "\n")
    return run


def _run_child(command: list[str], folder: str, log: Path) -> str:
    """Start a child in a session of its own, wait, end what it left behind; say how it ended."""
    environment = dict(os.environ)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *([inherited] if inherited else [])])
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _running.add(child.pid)
        try:
            return f"exit status {child.wait(MODULE_LIMIT_S)}"
        except subprocess.TimeoutExpired:
            return f"killed after {MODULE_LIMIT_S:.0f} s"
        finally:
            _kill_session(child.pid)
            child.wait()
            _running.discard(child.pid)


def kill_children() -> None:
    """End every child that runs now, with what it started."""
    for pid in tuple(_running):
        _kill_session(pid)


def _kill_session(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _entries(out: Path, start: int) -> Iterator[dict[str, Any]]:
    if not out.exists():
        return
    with out.open("rb") as file:
        file.seek(start)
        for line in file:
            yield json.loads(line)


def _fold(run: ModuleRun, entries: list[dict[str, Any]]) -> str | None:
    """Add one child's lines to the module's run; return the test that was begun and not ended, if there is one."""
    begun = None
    counts: dict[str, Any] = {"loops": 0, "ours": 0, "others": {}}
    for entry in entries:
        if "begin" in entry:
            begun = entry["begin"]
        elif "loops" in entry:
            counts = entry  # each line has the sums since this child began
        if "id" in entry:
            run.tests[entry["id"]] = Outcome(entry["outcome"], entry["detail"], entry["seconds"], entry["altered"])
            begun = None
    run.loops += counts["loops"]
    run.ours += counts["ours"]
    for name, number in counts["others"].items():
        run.others[name] = run.others.get(name, 0) + number
    return begun


def _tail(log: Path, lines: int = 60) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
