"""Run a program with `obsloop run`: set variables with which every Python process observes itself, then exec it.

With exec, unlike with an import, the program keeps its own signals, standard streams, exit code, line in `ps` and view
of its start, and a command need not be a Python script. bootstrap/sitecustomize.py and integrations/autoload.py do the
rest in the program.
"""

import argparse
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from obsloop.base.environment import GROUP, RUN, WARNED
from obsloop.base.suggest import nearest
from obsloop.cli.servers import would_use_uvloop

DEFAULT_ADDRESS = "127.0.0.1:9464"
BOOTSTRAP = Path(__file__).resolve().with_name("bootstrap")

_VALUED = ("--address", "--name")
_LIKE_ADDRESS = ("--port", "--host", "--bind", "--listen")
# The exit codes of shells.
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


def main(argv: Sequence[str]) -> int:
    """Become the program that `argv` names, the words after `obsloop run`. Return an exit code if that fails."""
    own, program = split_arguments(argv)
    parser = _parser()
    options, unknown = parser.parse_known_args(own)
    if unknown:
        parser.error(f"unknown option {unknown[0]}{_suggestion(unknown[0])}")
    if not program or program == ["-m"]:
        parser.error("what to run is missing: a script.py, -m MODULE or a COMMAND")
    from obsloop.base.settings import SettingsError  # noqa: PLC0415  (--help does not wait for it)

    try:
        environ, warnings = environment(os.environ, address=options.address, name=options.name)
        if options.keep_uvloop:
            environ["OBSLOOP_UVLOOP"] = "keep"
    except SettingsError as error:
        print(f"obsloop run: {str(error).replace('argument ', '--', 1)}", file=sys.stderr)
        return 2
    command = resolve(program)
    if command is None:
        print(
            f"obsloop run: command {program[0]!r} not found, neither on PATH nor beside {sys.executable}.",
            file=sys.stderr,
        )
        return _NOT_FOUND
    if environ.get("OBSLOOP_UVLOOP") != "keep" and would_use_uvloop(program, command[0]):
        warnings["uvloop"] = (
            "uvloop is installed, but obsloop uses its own loop, an observed asyncio loop, which measures more."
            " To keep uvloop: --keep-uvloop."
        )
    for warning in warnings.values():
        print(f"obsloop run: {warning}", file=sys.stderr)
    if warnings:
        environ[WARNED] = ",".join(warnings)
    return _become(command, environ)


def _suggestion(option: str) -> str:
    near = nearest(option.partition("=")[0], (*_VALUED, *_LIKE_ADDRESS, "--keep-uvloop", "--help"))
    if near in _LIKE_ADDRESS:
        near = "--address HOST:PORT"
    return f". Did you mean {near}?" if near else ""


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split `argv` into obsloop's options and the program with its own.

    The program begins after `--`, or at the first word that is no option of obsloop.
    """
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            return list(argv[:at]), list(argv[at + 1 :])
        if word == "-m" or not word.startswith("-"):
            break
        at += 2 if word in _VALUED else 1
    return list(argv[:at]), list(argv[at:])


def environment(
    environ: Mapping[str, str], *, address: str | None, name: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment of the program and its children, and a warning for each bad variable.

    A bad option raises SettingsError: the caller of this command sees it. A bad variable may have been set long ago, by
    someone else, for a service that must start. So only a warning names it, and here, not in each child.
    """
    from obsloop.base.settings import Settings, warnings_of  # noqa: PLC0415

    Settings(name=name, address=address)
    result = dict(environ)
    for variable, value in (("OBSLOOP_ADDRESS", address), ("OBSLOOP_NAME", name)):
        if value is not None:
            result[variable] = value
    warnings = warnings_of(result, {"OBSLOOP_ADDRESS": DEFAULT_ADDRESS})
    if not result.get("OBSLOOP_ADDRESS") or "OBSLOOP_ADDRESS" in warnings:
        result["OBSLOOP_ADDRESS"] = DEFAULT_ADDRESS
    # exec keeps the process id. So the program knows that it is the first process, and its children are not.
    result["OBSLOOP_RUN_PID"] = str(os.getpid())
    if result.get(GROUP, RUN).startswith(RUN):  # one that the user chose stays
        result[GROUP] = f"{RUN}{os.getpid()}-{secrets.token_hex(4)}"
    path = result.get("PYTHONPATH")
    others = [entry for entry in path.split(os.pathsep) if entry != str(BOOTSTRAP)] if path else []
    result["PYTHONPATH"] = os.pathsep.join([str(BOOTSTRAP), *others])
    return result, warnings


def resolve(program: Sequence[str]) -> list[str] | None:
    """Return the file to execute and its arguments as [file, argv0, argv1, ...]; None if there is no such command."""
    first = program[0]
    if first == "-m" or first.endswith(".py") or _is_plain_script(first):
        return [sys.executable, sys.executable, *program]
    # Search like a shell, then beside this interpreter: `obsloop` may be called by path, in an environment that is not
    # activated.
    found = shutil.which(first) or shutil.which(first, path=str(Path(sys.executable).parent))
    if found is None and os.path.dirname(first) and os.path.exists(first):
        found = first  # it exists but cannot be executed: exec says why
    return None if found is None else [found, *program]


def _is_plain_script(word: str) -> bool:
    """Return whether this is a file that is not executable, and no command on PATH has its name."""
    return os.path.isfile(word) and not os.access(word, os.X_OK) and shutil.which(word) is None


def _become(command: Sequence[str], environ: Mapping[str, str]) -> int:
    file, *arguments = command
    flag = ignores_pythonpath(arguments)
    if flag is not None:
        print(
            f"obsloop: {os.path.basename(file)} {flag} ignores PYTHONPATH, through which obsloop is loaded. "
            "The program runs on, not observed.",
            file=sys.stderr,
        )
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(file, arguments, environ)  # noqa: S606  (running what the user names is the command's work)
    except OSError as error:
        hint = " (a script needs a first line such as #!/bin/sh)" if error.errno == errno.ENOEXEC else ""
        print(f"obsloop run: {file} cannot be executed: {error.strerror}{hint}", file=sys.stderr)
        return _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE


def ignores_pythonpath(arguments: Sequence[str]) -> str | None:
    """Return the option (-I, -E or -S) with which a Python command line skips sitecustomize; None if it has none."""
    if not re.fullmatch(r"(python|pypy)[0-9.]*t?", os.path.basename(arguments[0])):
        return None
    words = iter(arguments[1:])
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            return None
        if word.startswith("--"):
            continue
        for at, letter in enumerate(word[1:], start=1):
            if letter in "IES":
                return f"-{letter}"
            if letter in "cm":
                return None  # the rest is the program's
            if letter in "WX":
                if at == len(word) - 1:
                    next(words, None)
                break
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="obsloop run",
        usage="obsloop run [--address HOST:PORT] [--name NAME] script.py ... | -m MODULE ... | COMMAND ...",
        description="Run a program, unchanged, on an observed loop. Options after the program are the program's.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "Python child processes are observed too. If the port is taken, they serve on a free one.\n\n"
            "example:\n"
            "  obsloop run --address 127.0.0.1:9464 uvicorn app:app"
        ),
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help=f"where /metrics and the other paths are served (default {DEFAULT_ADDRESS}; port 0 picks a free one); or "
        'unix:/PATH; or several, each with its paths: "127.0.0.1:9464, 10.1.2.3:9464 /metrics /healthz"',
    )
    parser.add_argument("--name", metavar="NAME", help="the name of the loops in the metrics")
    parser.add_argument(
        "--keep-uvloop",
        action="store_true",
        help="observe uvloop's loops, with fewer metrics, instead of replacing them (OBSLOOP_UVLOOP=keep)",
    )
    return parser
