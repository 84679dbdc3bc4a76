"""Compares two runs of the suite, test by test, and says what is wrong. Runs nothing, prints nothing."""

from dataclasses import asdict, dataclass, field
from typing import Any

from exceptions import Listed
from processes import ModuleRun, Outcome

GOOD = {"passed", "expectedFailure"}

# A full run makes thousands. Fewer than this, and the replacement did not happen.
MINIMUM_LOOPS = 500


@dataclass
class Verdict:
    """What the comparison found; `ok` is the harness's exit status."""

    regressions: dict[str, tuple[str, Outcome]] = field(default_factory=dict)  # with the stock outcome
    passed_on_retry: dict[str, Outcome] = field(default_factory=dict)
    fails_on_stock: dict[str, Outcome] = field(default_factory=dict)
    listed: dict[str, Listed] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)  # listed tests that should not be listed, and why
    left_behind: list[str] = field(default_factory=list)  # altered the environment on our side only
    unproven: list[str] = field(default_factory=list)  # why it is not shown that our loop was used

    @property
    def ok(self) -> bool:
        return not (self.regressions or self.stale or self.unproven)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def regressed(stock: Outcome | None, ours: Outcome | None) -> bool:
    """Whether a test is worse with our loop: fails, errs, is gone or newly skipped where stock does not."""
    if ours is not None and ours.outcome in GOOD:
        return False
    if stock is None:  # an error of a class or module, which stock does not have
        return ours is not None and ours.outcome != "skipped"
    if stock.outcome in GOOD:
        return True
    return stock.outcome == "skipped" and (ours is None or ours.outcome != "skipped")


def judge(
    stock: dict[str, ModuleRun],
    ours: dict[str, ModuleRun],
    listed: dict[str, Listed],
    *,
    all_tests: bool,
    all_modules: bool,
) -> Verdict:
    """Compare the two sides. `all_tests` of these modules were run, and these are `all_modules`: what must be there."""
    verdict = Verdict()
    for module, stock_run in stock.items():
        ours_run = ours[module]
        for name in {**stock_run.tests, **ours_run.tests}:
            _judge_test(verdict, name, stock_run.tests.get(name), ours_run.tests.get(name), listed)
        if not ours_run.ours and _has_loops(stock_run):
            verdict.unproven.append(f"{module}: {stock_run.loops} loops on stock, none of our class on ours")
    for name in listed:
        module = name.removeprefix("test.test_asyncio.").partition(".")[0]
        known = stock[module].tests if module in stock else {}
        if name not in known and (all_modules or (all_tests and module in stock)):
            verdict.stale[name] = "no such test on this interpreter: remove it or narrow its versions"
    total = sum(run.ours for run in ours.values())
    if all_modules and total < MINIMUM_LOOPS:
        verdict.unproven.append(f"{total} loops of our class in the whole suite, expected {MINIMUM_LOOPS} or more")
    if not any(run.tests for run in stock.values()):
        verdict.unproven.append("no test was run: does the pattern match one?")
    return verdict


def _judge_test(
    verdict: Verdict, name: str, stock: Outcome | None, ours: Outcome | None, listed: dict[str, Listed]
) -> None:
    if name in listed:
        if regressed(stock, ours):
            verdict.listed[name] = listed[name]
        else:
            verdict.stale[name] = "is no worse than on the stock loop: remove it from the list"
    elif regressed(stock, ours):
        verdict.regressions[name] = (stock.outcome if stock else "not there", ours or Outcome("missing"))
    elif ours is not None and ours.retries:
        verdict.passed_on_retry[name] = ours
    elif ours is not None and ours.outcome not in GOOD | {"skipped"}:
        verdict.fails_on_stock[name] = ours
    if ours is not None and ours.altered and stock is not None and not stock.altered:
        verdict.left_behind.append(name)


def _has_loops(run: ModuleRun) -> bool:
    """Whether a module makes loops that could be ours: the proactor's tests make their own stock kind only."""
    return any("Proactor" not in name for name in run.others)
