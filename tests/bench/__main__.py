"""Every benchmark in turn; figures as JSON in `results/`, one file each.

    python -m tests.bench [--only table watching flat scrape http] [--limits]

Fails, with `--limits`, where the table is over its goals by more than `run.MARGIN`. The reports do not fail.
"""

import argparse
import sys

from tests.bench import flat, http, run, scrape, watching

REPORTS = {
    "watching": watching.main,
    "flat": flat.main,
    "scrape": scrape.main,
    "http": http.main,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["table", *REPORTS], help="these and no others")
    parser.add_argument("--limits", action="store_true", help="exit 1 where the table is far over its goals")
    args = parser.parse_args()
    chosen = args.only or ["table", *REPORTS]
    code = 0
    if "table" in chosen:
        code = run.main(["--uvloop", *(["--limits"] if args.limits else [])])
    for name, report in REPORTS.items():
        if name in chosen:
            report()
    return code


if __name__ == "__main__":
    sys.exit(main())
