"""Make dashboards/generated/ from the catalogue and config.py: dashboards, rules, alerts, tests, the page of metrics.

    python dashboards/build.py [--check]

`--check` writes nothing, and fails if a committed file differs from what would be written. Needs prometheus_client
(extra `prometheus`): names come from the exporter's mapping, which writes the values of `le` with that package.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "exporters")]  # works in a checkout without an installation

import alert_tests  # noqa: E402
import alerts  # noqa: E402
import config  # noqa: E402
import loops  # noqa: E402
import overview  # noqa: E402
import reference  # noqa: E402
import rules  # noqa: E402
import yaml_text  # noqa: E402
from panels import dashboard  # noqa: E402
from queries import QueryError  # noqa: E402

GENERATED = HERE / "generated"
HEAD = "Made by dashboards/build.py from config.py and {source}: change those."


def main() -> int:
    """Write the files, or print which are stale. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    parser.add_argument("--out", type=Path, default=GENERATED, help="the folder (default: dashboards/generated)")
    options = parser.parse_args()
    try:
        made = dict(files())
    except QueryError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    there = {path.name for path in options.out.glob("*")} if options.out.exists() else set[str]()
    stale = sorted(there - set(made)) + [
        name for name, text in made.items() if name not in there or (options.out / name).read_text() != text
    ]
    if options.check:
        for name in stale:
            print(f"stale: {options.out / name}; run python dashboards/build.py", file=sys.stderr)
        return 1 if stale else 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in made:
            (options.out / name).write_text(made[name])
            print(f"wrote {options.out / name}")
        else:
            print(f"{options.out / name} is not made here any more: remove it", file=sys.stderr)
    return 0


def files() -> Iterator[tuple[str, str]]:
    """Yield each file's name and text."""
    yield f"{config.OVERVIEW_UID}.json", _json(dashboard(
        config.OVERVIEW_UID, "asyncio: is the loop healthy?",
        "What the event loops of the chosen jobs do, in the order of the usual questions.", overview.ROWS,
    ))  # fmt: skip
    yield f"{config.LOOPS_UID}.json", _json(dashboard(
        config.LOOPS_UID, "asyncio: one loop, one worker", "Details: every histogram, every kind.", loops.ROWS,
    ))  # fmt: skip
    yield "rules.yaml", yaml_text.text({"groups": rules.groups()}, HEAD.format(source="rules.py"))
    yield "alerts.yaml", yaml_text.text({"groups": alerts.groups()}, HEAD.format(source="alerts.py"))
    yield "alerts_test.yaml", yaml_text.text(alert_tests.document(), HEAD.format(source="alert_tests.py"))
    yield "metrics.md", reference.text()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
