"""`obsloop run`: sets up the environment in which every Python process observes itself, then becomes the
program.

It execs, rather than import and run the program here: signals, standard streams, exit code, `ps` and the
program's view of its own start are then its own, and a command that is no Python script can be run as well.
What happens in the program is in bootstrap/sitecustomize.py and in integrations/autoload.py.
"""

import argparse
import errno
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DEFAULT_ADDRESS = "127.0.0.1:9464"
BOOTSTRAP = Path(__file__).resolve().with_name("bootstrap")

_VALUED = ("--address", "--name")
# As shells have it.
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


def main(argv: Sequence[str]) -> int:
    """Become the program that `argv`, the words after `obsloop run`, names; return an exit code where that
    fails.
    """
    own, program = split_arguments(argv)
    parser = _parser()
    options = parser.parse_args(own)
    if not program or program == ["-m"]:
        parser.error("what to run is missing: a script.py, -m MODULE or a COMMAND")
    from obsloop.base.settings import SettingsError  # noqa: PLC0415  (--help does not wait for it)

    try:
        environ = environment(os.environ, address=options.address, name=options.name)
    except SettingsError as error:
        print(f"obsloop run: {error}", file=sys.stderr)
        return 2
    command = resolve(program)
    if command is None:
        print(
            f"obsloop run: there is no command {program[0]!r}, neither on PATH nor beside {sys.executable}.",
            file=sys.stderr,
        )
        return _NOT_FOUND
    return _become(command, environ)


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our options, and the program with all its own: from the first word that is no option of ours, or after
    `--`.
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


def environment(environ: Mapping[str, str], *, address: str | None, name: str | None) -> dict[str, str]:
    """The environment of the program and its children; raises SettingsError on any setting that is no good.

    Checked here, before the program begins, since there a bad setting can only be complained about.
    """
    from obsloop.base.settings import Settings  # noqa: PLC0415

    # By arguments first, so that an error names the option as its source and not a variable that we have set.
    Settings(name=name, address=address)
    result = dict(environ)
    if address is not None or not result.get("OBSLOOP_ADDRESS"):
        result["OBSLOOP_ADDRESS"] = address if address is not None else DEFAULT_ADDRESS
    if name is not None:
        result["OBSLOOP_NAME"] = name
    # exec keeps the process id: so the program knows that it is the first process, and its children that they
    # are not.
    result["OBSLOOP_RUN_PID"] = str(os.getpid())
    Settings.from_env(result)
    path = result.get("PYTHONPATH")
    others = [entry for entry in path.split(os.pathsep) if entry != str(BOOTSTRAP)] if path else []
    result["PYTHONPATH"] = os.pathsep.join([str(BOOTSTRAP), *others])
    return result


def resolve(program: Sequence[str]) -> list[str] | None:
    """The file to execute and its argument list, as [file, argv0, argv1, ...]; None where there is no such
    command.
    """
    first = program[0]
    if first == "-m" or first.endswith(".py") or _is_plain_script(first):
        return [sys.executable, sys.executable, *program]
    # Like a shell; and then beside this interpreter, since a virtual environment need not be activated for
    # its `obsloop` to be called by path.
    found = shutil.which(first) or shutil.which(first, path=str(Path(sys.executable).parent))
    if found is None and os.path.dirname(first) and os.path.exists(first):
        found = first  # it is there but cannot be executed: exec says why
    return None if found is None else [found, *program]


def _is_plain_script(word: str) -> bool:
    """A file that is not executable, unless a command on PATH has the same name."""
    return os.path.isfile(word) and not os.access(word, os.X_OK) and shutil.which(word) is None


def _become(command: Sequence[str], environ: Mapping[str, str]) -> int:
    file, *arguments = command
    flag = ignores_pythonpath(arguments)
    if flag is not None:
        print(
            f"obsloop: {os.path.basename(file)} {flag} ignores PYTHONPATH, by which obsloop gets in. "
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
    """The option (-I, -E or -S) by which a Python command line shuts sitecustomize out, None where it does
    not.
    """
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
        description="Run a program, unchanged, on an observed loop. What follows the program is its own.",
        allow_abbrev=False,
        epilog="Python child processes are observed too; where the port is taken they serve on a free one.",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help=f"where /metrics and the other paths are served (default {DEFAULT_ADDRESS}; port 0 picks a free one); or "
        'unix:/PATH; or several, each with its paths: "127.0.0.1:9464, 10.1.2.3:9464 /metrics /healthz"',
    )
    parser.add_argument("--name", metavar="NAME", help="the name of the loops in the figures")
    return parser
