"""Every benchmark in turn; figures as JSON in `results/`, one file each.

    python -m tests.bench [--only table watching flat scrape http] [--quick] [--limits] [--write]

Fails, with `--limits`, where a row is worse than in BENCHMARKS.md by more than a tolerance. The reports do not fail.
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
    parser.add_argument("--limits", action="store_true", help="exit 1 where a row is worse than in BENCHMARKS.md")
    parser.add_argument("--quick", action="store_true", help="only the table, in about three minutes")
    parser.add_argument("--write", action="store_true", help="write the table into BENCHMARKS.md")
    args = parser.parse_args()
    chosen = args.only or (["table"] if args.quick else ["table", *REPORTS])
    code = 0
    if "table" in chosen:
        code = run.main([f"--{name}" for name in ("limits", "quick", "write") if getattr(args, name)])
    for name, report in REPORTS.items():
        if name in chosen:
            report()
    return code


if __name__ == "__main__":
    sys.exit(main())
