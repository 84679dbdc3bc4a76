"""The `obsloop` command: its options, and a table of what it can do. Each subcommand lives in a file of its
own.
"""

import argparse
import platform
import sys
from collections.abc import Sequence

from obsloop.cli import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (None: the process's arguments); return its exit code.

    `obsloop run` does not return where it succeeds: the observed program takes the place of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["run"]:
            # Not by argparse's own subcommands: what follows the program is the program's, and argparse would
            # look for options in it.
            return run.main(words[1:])
        arguments = _parser().parse_args(words)
    except SystemExit as end:  # argparse's way to say that --help was given, or something wrong
        return end.code if isinstance(end.code, int) else 2
    if arguments.version:
        print(version())
        return 0
    _parser().print_help()
    return 2


def version() -> str:
    """What a bug report needs, in one line."""
    # --help and errors in options do not wait for these.
    from obsloop._version import __version__  # noqa: PLC0415
    from obsloop.hotpath import backend  # noqa: PLC0415

    return f"obsloop {__version__} (core: {backend.name}, Python {platform.python_version()})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="obsloop",
        description="Observes asyncio programs: where the time of their event loops went.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "commands:\n"
            "  run    run a program, unchanged, on an observed loop: `obsloop run --help`\n\n"
            "example:\n"
            "  obsloop run uvicorn app:app & curl http://127.0.0.1:9464/metrics"
        ),
    )
    parser.add_argument("--version", action="store_true", help="print the version and which core is in use")
    parser.add_argument("command", nargs="?", choices=["run"], metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
