"""Prints what the judge found: a table, then every name that the table only counts, then tracebacks."""

from judge import Verdict
from processes import ModuleRun, Outcome

Runs = dict[str, ModuleRun]


def print_report(stock: Runs, ours: Runs, verdict: Verdict, ours_name: str) -> None:
    """Print the whole report to standard output."""
    names: list[tuple[str, object, object]] = [
        ("tests run", _count(stock), _count(ours)),
        ("passed", _count(stock, "passed"), _count(ours, "passed")),
        ("passed on retry", _retried(stock), _retried(ours)),
        ("expected failures", _count(stock, "expectedFailure"), _count(ours, "expectedFailure")),
        ("skipped", _count(stock, "skipped"), _count(ours, "skipped")),
        ("failed", _count(stock, *_FAILED), _count(ours, *_FAILED)),
        ("  of them, failing on stock as well", "", len(verdict.fails_on_stock)),
        ("  of them, listed exceptions", "", len(verdict.listed)),
        ("  regressions, newly skipped ones too", "", len(verdict.regressions)),
        ("loops made", sum(r.loops for r in stock.values()), sum(r.loops for r in ours.values())),
        ("  of the class under test", "", sum(r.ours for r in ours.values())),
        ("left threads or children behind", _altered(stock), _altered(ours)),
        ("seconds in tests, summed", f"{_seconds(stock):.0f}", f"{_seconds(ours):.0f}"),
    ]
    width = max(14, len(ours_name) + 2)
    print(f"\n{'':38}{'stock':>10}{ours_name:>{width}}")
    for label, left, right in names:
        print(f"{label:38}{left!s:>10}{right!s:>{width}}")

    others: dict[str, int] = {}
    for run in ours.values():
        for name, number in run.others.items():
            others[name] = others.get(name, 0) + number
    _names("loops that stayed stock", [f"{name}: {number}" for name, number in others.items()])
    _names("passed on retry", [f"{n} (retry {o.retries})" for n, o in verdict.passed_on_retry.items()])
    _names("passed on retry on stock", [n for r in stock.values() for n, o in r.tests.items() if o.retries])
    _names("fails on stock as well", list(verdict.fails_on_stock))
    _names("listed exceptions", [f"{name}: {entry.reason}" for name, entry in verdict.listed.items()])
    _names("leaves something behind on our side only", verdict.left_behind)
    _names("STALE in the list of exceptions", [f"{name}: {why}" for name, why in verdict.stale.items()])
    _names("NOT PROVEN that our loop was used", verdict.unproven)
    gone = [name for name, (_, outcome) in verdict.regressions.items() if outcome.outcome == "missing"]
    _names("REGRESSIONS: not run on ours (see the errors of their class or module)", gone)
    for alike in _alike(verdict):
        for name, before, outcome in alike:
            print(f"\nREGRESSION {name}: {before} on stock, {outcome.outcome} on ours", end="")
        if len(alike) > 1:
            print("\n    The first one's traceback; the others end with the same line.", end="")
        print("\n" + "\n".join(f"    {line}" for line in alike[0][2].detail.splitlines()))
    print("\nThe loop conforms." if verdict.ok else "\nThe loop does NOT conform.")


_FAILED = ("failed", "error", "unexpectedSuccess")


def _tests(runs: Runs) -> list[Outcome]:
    return [outcome for run in runs.values() for outcome in run.tests.values()]


def _count(runs: Runs, *outcomes: str) -> int:
    return sum(not outcomes or test.outcome in outcomes for test in _tests(runs))


def _retried(runs: Runs) -> int:
    return sum(test.retries > 0 for test in _tests(runs))


def _altered(runs: Runs) -> int:
    return sum(test.altered for test in _tests(runs))


def _seconds(runs: Runs) -> float:
    return sum(test.seconds for test in _tests(runs))


def _names(title: str, names: list[str]) -> None:
    if names:
        print(f"\n{title}:")
        for name in sorted(names):
            print(f"  {name}")


def _alike(verdict: Verdict) -> list[list[tuple[str, str, Outcome]]]:
    """The regressions that were run, in groups with the same last line: one cause is often that of hundreds."""
    groups: dict[str, list[tuple[str, str, Outcome]]] = {}
    for name, (before, outcome) in verdict.regressions.items():
        if outcome.outcome != "missing":
            last = outcome.detail.strip().rpartition("\n")[2]
            groups.setdefault(last, []).append((name, before, outcome))
    return list(groups.values())
