"""Runs one module of `test.test_asyncio` in this process and writes one line of JSON for each test as it ends.

Started by `processes.py`, never by hand. The lines are written at once and unbuffered, so that what is known survives
a hang or a crash; a test that was begun and never ended is the culprit. Nothing here judges.
"""

import argparse
import faulthandler
import fnmatch
import json
import os
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from time import monotonic  # by name: some tests patch the module's
from typing import Any

HERE = str(Path(__file__).resolve().parent)

# From best to worst: a test with several outcomes (subtests, a failing clean-up) has the worst of them.
OUTCOMES = ("passed", "expectedFailure", "skipped", "unexpectedSuccess", "failed", "error")


class Recorder(unittest.TestResult):
    """A result that folds subtests into their test and writes each test down when it stops."""

    def __init__(self, out: Any, names: dict[int, str], count: Any, limit: float) -> None:
        super().__init__()
        self.out = out
        self.names = names
        self.count = count
        self.limit = limit
        self.began = 0.0
        self.outcome = "passed"
        self.detail = ""

    def write(self, **fields: Any) -> None:
        """Append one line: one write to an unbuffered file, so that a forked child cannot write it again."""
        self.out.write(json.dumps(fields).encode() + b"\n")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.began = monotonic()
        self.write(begin=self.names[id(test)])
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        # 3.12.1 stops tests that their class skips without starting them.
        self.record(self.names[id(test)], monotonic() - self.began if self.began else 0.0)
        self.outcome, self.detail, self.began = "passed", "", 0.0

    def record(self, name: str, seconds: float) -> None:
        """Write the outcome of the test that ended, and whether it left something behind (threads, children)."""
        from test import support

        altered, support.environment_altered = support.environment_altered, False
        self.write(
            id=name,
            outcome=self.outcome,
            detail=self.detail,
            seconds=round(seconds, 3),
            altered=altered,
            loops=self.count.made,
            ours=self.count.ours,
            others=self.count.others,
        )

    def add(self, test: Any, outcome: str, detail: str) -> None:
        if OUTCOMES.index(outcome) > OUTCOMES.index(self.outcome):
            self.outcome = outcome
        if detail:
            self.detail += ("\n" if self.detail else "") + detail
        if not isinstance(test, unittest.TestCase):  # setUpClass or setUpModule, which never start or stop
            self.outcome, self.detail = outcome, detail
            self.record(test.id(), 0.0)
            self.outcome, self.detail = "passed", ""

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self.add(test, "error", self.errors[-1][1])

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self.add(test, "failed", self.failures[-1][1])

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            text = (self.failures if failed else self.errors)[-1][1]
            self.add(test, "failed" if failed else "error", f"{subtest}\n{text}")

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self.add(test, "skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.add(test, "expectedFailure", "")

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self.add(test, "unexpectedSuccess", "passed, but is marked as an expected failure")


def flatten(suite: Any) -> Iterator[Any]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def matches(name: str, pattern: str) -> bool:
    """As unittest's -k: a pattern with a star is matched as a whole, one without anywhere."""
    return fnmatch.fnmatchcase(name, pattern) if "*" in pattern else pattern in name


def select(module: str, patterns: list[str], only: list[str], done: set[str]) -> dict[str, Any]:
    """The tests to run, by unique name. A test that the module holds twice is called NAME#2 the second time."""
    chosen: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for test in flatten(unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")):
        number = seen[test.id()] = seen.get(test.id(), 0) + 1
        name = test.id() if number == 1 else f"{test.id()}#{number}"
        wanted = not patterns or any(matches(name, pattern) for pattern in patterns)
        if wanted and name not in done and (not only or name in only):
            chosen[name] = test
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loop")
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--match", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {entry["id"] for entry in map(json.loads, lines) if "id" in entry}

    faulthandler.enable()
    import replace

    sys.path.remove(HERE)  # none of our module names may answer an import of the suite's
    from test import support

    # As under regrtest without -u: nothing that needs the network or hours.
    support.use_resources = {"cpu": None, "subprocess": None, "walltime": None}
    count = replace.LoopCount()
    loop_class = replace.load_class(options.loop) if options.loop else None
    if loop_class is not None:
        # A thread that a loop's class starts once per process is not what a test left behind.
        loop = loop_class()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    count.start(loop_class)
    if loop_class is not None:
        replace.replace(loop_class, options.module)

    tests, skipped = {}, None
    try:
        tests = select(options.module, options.match, options.only, done)
    except unittest.SkipTest as reason:  # Windows' modules: raised while they are imported
        skipped = str(reason)
    with open(options.out, "ab", buffering=0) as out:
        recorder = Recorder(out, {id(test): name for name, test in tests.items()}, count, options.limit)
        if skipped is not None:
            recorder.outcome, recorder.detail = "skipped", skipped
            recorder.record(f"{options.module} (the module)", 0.0)
        unittest.TestSuite(tests.values()).run(recorder)
        recorder.write(end=True, loops=count.made, ours=count.ours, others=count.others)
    # Like regrtest's workers: what a test left (a thread, a forkserver) must not keep this process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
