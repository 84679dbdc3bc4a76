"""Runs the tests and the conformance suite on every interpreter that is found, and prints a table of it all.

    python tools/test_all.py [--only 3.12 3.15] [--require 3.11 3.13 3.15] [--cores compiled pure] [--core-only]

On both cores, where the compiled one could be built. The tests of real clients (tests/clients) run on the interpreter
that runs this only: a new one waits longest for the wheels of such packages. Exit code 1 when anything failed, or when
something that was required by name is missing.
"""

# ruff: noqa: S603  (it runs the interpreters that were found)

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interpreters import MINORS, ROOT, Minor, compile_variables, find

CORES = ("compiled", "pure")
WORKERS = os.environ.get("WORKERS", "4")
"""How many tests of one run are side by side."""
_RESULTS = ROOT / ".cache" / "test-all"
_SUMMARY = re.compile(r"=+ (?P<what>.*\d+ \w+.* in [\d.]+s.*?) =+")
_GOOD = ("passed", "expectedFailure")


@dataclass
class Result:
    """What came of one interpreter and one core."""

    version: str
    core: str = "-"
    summary: str = "not run"
    tests: Counter[str] = field(default_factory=Counter)
    conformance: dict[str, Any] = field(default_factory=dict)
    ok: bool = False
    seconds: float = 0.0


def main() -> int:
    """Run everything; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", type=minor_version, default=MINORS, metavar="3.N", help="only these")
    parser.add_argument("--require", nargs="+", type=minor_version, default=(), metavar="3.N", help="must be there")
    parser.add_argument("--cores", nargs="+", choices=CORES, help="these, which must be there (default: what is built)")
    parser.add_argument("--core-only", action="store_true", help="without the tests that cannot see the core")
    options = parser.parse_args()
    if options.core_only:
        os.environ["TESTS_OF_THE_CORE_ONLY"] = "1"
    wanted = tuple(minor for minor in MINORS if minor in options.only)
    pythons = find(wanted)
    results = [result for python in pythons.items() for result in on_interpreter(*python, options.cores)]
    results += [Result(text_of(minor), summary="missing") for minor in options.require if minor not in pythons]
    print_table(results)
    not_there = [text_of(minor) for minor in wanted if minor not in pythons]
    if not_there:
        print(f"Not found: Python {', '.join(not_there)}")
    for result in results:
        if not result.ok:
            print(f"FAILED: Python {result.version}, {result.core} core")
    return 0 if results and all(result.ok for result in results) else 1


def minor_version(text: str) -> Minor:
    """From "3.12"."""
    for minor in MINORS:
        if text == text_of(minor):
            return minor
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(map(text_of, MINORS))}")


def text_of(minor: Minor) -> str:
    """As people write it."""
    return f"{minor[0]}.{minor[1]}"


def on_interpreter(minor: Minor, python: Path, cores: list[str] | None) -> Iterator[Result]:
    """Environment, then tests and conformance, side by side, on each core. A failure does not end the run."""
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    print(f"\n##### Python {version}: {python}\n", flush=True)
    # The machine's own keeps the environment that `make test` uses.
    own = python == Path(sys.executable)
    environment = ROOT / (".venv" if own else f".venv-{text_of(minor)}")
    extras = ["test", "clients"] if own else ["test"]
    make: list[str | Path] = [python, "tools/environment.py", environment.name, *extras]
    if subprocess.run(make, cwd=ROOT, env=os.environ | compile_variables(python), check=False).returncode:
        yield Result(version, summary="no environment")
        return
    inside = environment / "bin" / "python"
    built = [core for core in CORES if core_with(inside, core) == core]
    for core in cores or built:
        result = Result(version, core)
        if core in built:
            print(f"\n##### Python {version}, {core} core\n", flush=True)
            begin = time.monotonic()
            result.ok = run_both(inside, result, own)
            result.seconds = time.monotonic() - begin
        else:
            result.summary = "the core was not built"
        yield result


def variables(core: str) -> dict[str, str]:
    """The environment in which obsloop chooses `core`, if it is there, and no test runs others on the other core."""
    kept = {name: value for name, value in os.environ.items() if name != "OBSLOOP_PURE"}
    return kept | {"TESTS_ON_THE_OTHER_CORE": "1"} | ({"OBSLOOP_PURE": "1"} if core == "pure" else {})


def core_with(python: Path, core: str) -> str:
    """The core that obsloop really uses when `core` is asked for."""
    command: list[str | Path] = [python, "-c", "import obsloop; print(obsloop.core)"]
    return subprocess.run(command, env=variables(core), capture_output=True, text=True, check=False).stdout.strip()


def run_both(python: Path, result: Result, clients: bool) -> bool:
    """Run pytest and the conformance suite side by side, since both wait more than they compute."""
    with ThreadPoolExecutor(1) as pool:
        conformance = pool.submit(run_conformance, python, result)
        tests_ok = run_pytest(python, result, clients)
        ok, said = conformance.result()
    print(f"\n##### Conformance, Python {result.version}, {result.core} core\n\n{said}", flush=True)
    return ok and tests_ok


def run_pytest(python: Path, result: Result, clients: bool) -> bool:
    """Run pytest, with tests/clients or without, and show its output. Its last line gives the counts.

    What each test took is in .cache/test-all/tests-VERSION-CORE.xml, as JUnit writes it.
    """
    times = _RESULTS / f"tests-{result.version}-{result.core}.xml"
    with subprocess.Popen(
        [python, "-m", "pytest", "-n", WORKERS, "--dist", "loadgroup", f"--junitxml={times}", "tests"],
        cwd=ROOT,
        env=variables(result.core) | ({} if clients else {"TESTS_WITHOUT_CLIENTS": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if match := _SUMMARY.search(line):
                result.summary = match["what"]
    for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", result.summary):
        result.tests[what] += int(number)
    return process.returncode == 0


def run_conformance(python: Path, result: Result) -> tuple[bool, str]:
    """CPython's own tests on our loop: whether all is well, and the output. The harness writes the counts to a file."""
    path = _RESULTS / f"conformance-{result.version}-{result.core}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    done = subprocess.run(
        [python, "tests/conformance/run.py", "--json", path],
        cwd=ROOT,
        env=variables(result.core),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if path.exists():
        document = json.loads(path.read_text())
        outcomes = Counter(test["outcome"] for run in document["ours"].values() for test in run["tests"].values())
        result.conformance = {
            "run": outcomes.total(),
            "passed": sum(outcomes[outcome] for outcome in _GOOD),
            "skipped": outcomes["skipped"],
            **{name: len(document["verdict"][name]) for name in ("listed", "regressions")},
        }
    return done.returncode == 0, done.stdout


def print_table(results: list[Result]) -> None:
    """One line for each interpreter and core, then pytest's own last lines."""
    row = "{:<8} {:<9} {:>12} {:>6} {:>7} {:>16} {:>6} {:>7} {:>6} {:>11} {:>8}"
    titles = "Python,core,tests passed,failed,skipped,conformance run,passed,skipped,listed,regressions,seconds"
    print("\n" + row.format(*titles.split(",")))
    for r in results:
        tests = (r.tests["passed"], r.tests["failed"] + r.tests["error"], r.tests["skipped"]) if r.tests else ("-",) * 3
        counts = (r.conformance.get(name, "-") for name in ("run", "passed", "skipped", "listed", "regressions"))
        print(row.format(r.version, r.core, *tests, *counts, f"{r.seconds:.0f}"))
    print()
    for r in results:
        print(f"Python {r.version}, {r.core}: {r.summary}")


if __name__ == "__main__":
    sys.exit(main())
