"""Watch observed processes with `obsloop top`: in the terminal, or once, for scripts."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from obsloop.base.suggest import nearest

INSTALL = 'pip install "obsloop[top]"'
_OPTIONS = ("--once", "--json", "--help")


def main(argv: Sequence[str]) -> int:
    """Run `obsloop top` with the words after it. Return 1 if there is nothing to show, and 2 for a mistake."""
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        near = nearest(unknown[0].partition("=")[0], _OPTIONS)
        what = "unknown option" if unknown[0].startswith("-") else "only one of PID, GROUP and URL is expected, but got"
        parser.error(f"{what} {unknown[0]}{f'. Did you mean {near}?' if near else ''}")
    from obsloop.top import target  # noqa: PLC0415  (--help does not wait for it)

    try:
        wanted = target.parse(options.target)
    except target.TargetError as error:
        parser.error(str(error))
    once = options.once or options.json
    if not once and (problem := _no_application()):
        print(f"obsloop top: {problem}", file=sys.stderr)
        return 2
    from obsloop.top.source import Source, SourceError  # noqa: PLC0415  (as above)

    source: Source
    try:
        if wanted.url:
            from obsloop.top.remote import Remote  # noqa: PLC0415

            source = Remote(wanted.url)
        else:
            try:
                from obsloop.top.local import Local, missing  # noqa: PLC0415
            except ImportError:  # there is no fcntl
                raise SourceError("this system has no groups of processes. Name a service: http://HOST:PORT") from None
            source = Local(wanted)
            if (once or options.target) and not source.read().groups:
                raise missing(wanted)
        if not once:
            from obsloop.top.app import show  # noqa: PLC0415  (it loads Textual)

            return show(source)
        from obsloop.top import once as printed  # noqa: PLC0415

        reading = source.read()
    except SourceError as error:
        print(f"obsloop top: {error}", file=sys.stderr)
        return 1
    width = shutil.get_terminal_size((100, 24)).columns
    sys.stdout.write(printed.as_json(reading) if options.json else printed.as_text(reading, width))
    return 0


def _no_application() -> str:
    """Return why the application cannot run here; an empty text if it can."""
    if find_spec("textual") is None:
        return (
            f"Textual is missing, which draws in the terminal. To install it: {INSTALL}\n"
            "Without it, `obsloop top --once` prints a table."
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "this is no terminal. `obsloop top --once` prints a table, and --json prints JSON."
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="obsloop top",
        description="Watch observed processes: what blocks their loops now and did last, tasks, executors, lints.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "Without an argument: every observed process of this user on this machine.\n\n"
            "examples:\n"
            "  obsloop top\n"
            "  obsloop top http://10.1.2.3:9464\n"
            "  obsloop top --json | jq '.groups[].loops[].blocked_share'"
        ),
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="PID | GROUP | URL",
        help="one process, the processes of one group (its name or the beginning of it), or a service elsewhere",
    )
    parser.add_argument("--once", action="store_true", help="print a table and end; needs no Textual")
    parser.add_argument("--json", action="store_true", help="print JSON and end; needs no Textual")
    return parser
