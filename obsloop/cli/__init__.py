"""The `obsloop` command: its options and subcommands. Each subcommand has its own file."""

import argparse
import platform
import shlex
import sys
from collections.abc import Sequence

from obsloop.base.suggest import nearest
from obsloop.cli import run, top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (None: the process's arguments) and return its exit code.

    If `obsloop run` succeeds, it does not return: the observed program takes the place of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["run"]:
            # Not argparse's subcommands: it would take options of the program for options of obsloop.
            return run.main(words[1:])
        if words[:1] == ["top"]:
            return top.main(words[1:])
        parser = _parser()
        arguments, unknown = parser.parse_known_args(words)
        if unknown or (arguments.command and not arguments.version):
            parser.error(_wrong(words, unknown))
    except SystemExit as end:  # argparse raises it after --help and after an error
        return end.code if isinstance(end.code, int) else 2
    if arguments.version:
        print(version())
        return 0
    _parser().print_help()
    return 2


def version() -> str:
    """Return what a bug report needs, in one line: the versions and the core."""
    # Imported here so that --help and errors in options do not wait for them.
    from obsloop._version import __version__  # noqa: PLC0415
    from obsloop.hotpath import backend  # noqa: PLC0415

    return f"obsloop {__version__} (core: {backend.name}, Python {platform.python_version()})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="obsloop",
        description="Observe asyncio programs: see where the time of their event loops goes.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "commands:\n"
            "  run    run a program, unchanged, on an observed loop: `obsloop run --help`\n"
            "  top    watch observed processes in the terminal: `obsloop top --help`\n\n"
            "example:\n"
            "  obsloop run uvicorn app:app & curl http://127.0.0.1:9464/metrics"
        ),
    )
    parser.add_argument("--version", action="store_true", help="print the version and which core is in use")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _wrong(words: Sequence[str], unknown: Sequence[str]) -> str:
    """Return what is wrong with a command line that does not begin with a command, and what to write."""
    word = words[0]
    if not word.startswith("-"):
        near = nearest(word, ("run", "top"))
        return f"there is no command {word!r}. " + (
            f"Did you mean {near}?" if near else f"To run a program, write: obsloop run {shlex.join(words)}"
        )
    option = next((word for word in unknown if word.startswith("-")), word)
    near = nearest(option.partition("=")[0], ("--version", "--help", "--address", "--name"))
    if near in ("--address", "--name"):
        near = f"obsloop run {near}"
    return f"unknown option {option}." + (f" Did you mean {near}?" if near else "")
