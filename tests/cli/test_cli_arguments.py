"""The command line: whose option is whose, what is refused, what becomes the program."""

import os
import re
import sys

import pytest

import obsloop
from obsloop.cli import main, servers
from obsloop.cli.run import BOOTSTRAP, environment, ignores_pythonpath, resolve, split_arguments
from tests.cli.programs import run


@pytest.mark.parametrize(
    ("words", "own", "program"),
    [
        (["a.py"], [], ["a.py"]),
        (["a.py", "--address", "x"], [], ["a.py", "--address", "x"]),
        (["--address", "h:1", "a.py", "--name", "n"], ["--address", "h:1"], ["a.py", "--name", "n"]),
        (["--address=h:1", "-m", "mod", "-m"], ["--address=h:1"], ["-m", "mod", "-m"]),
        (["--name", "-m", "a.py"], ["--name", "-m"], ["a.py"]),
        (["--", "--odd-command", "x"], [], ["--odd-command", "x"]),
        (["--help", "a.py"], ["--help"], ["a.py"]),
        (["cmd", "--", "x"], [], ["cmd", "--", "x"]),
        (["--address"], ["--address"], []),
        ([], [], []),
    ],
)
def test_options_before_the_program_are_ours_and_all_after_it_is_its_own(words, own, program):
    """Also where both have options of the same name."""
    assert split_arguments(words) == (own, program)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["run"], "what to run is missing"),
        (["run", "-m"], "what to run is missing"),
        (["run", "--address", "h:1"], "what to run is missing"),
        (["run", "--adress", "h:1", "a.py"], "unknown option --adress. Did you mean --address?"),
        (["run", "--addr", "h:1", "a.py"], "unknown option --addr. Did you mean --address?"),
        (["run", "--prot", "9464", "a.py"], "unknown option --prot. Did you mean --address HOST:PORT?"),
        (["run", "--bind=h:1", "a.py"], "unknown option --bind=h:1. Did you mean --address HOST:PORT?"),
        (["run", "-x", "a.py"], "unknown option -x"),
        (["run", "--address"], "--address"),
        (["run", "--address", "nonsense", "a.py"], "--address: 'nonsense' is not accepted"),
        (["run", "--address", "http://h:1/metrics", "a.py"], "it is a URL; expected h:1, or h:1 /metrics for this"),
        (["run", "--name", "", "a.py"], "--name: '' is not accepted"),
        (["rnu", "a.py"], "there is no command 'rnu'. Did you mean run?"),
        (["uvicorn", "app:app"], "there is no command 'uvicorn'. To run a program, write: obsloop run uvicorn app:app"),
        (["--fast"], "unknown option --fast."),
        (["--verison"], "unknown option --verison. Did you mean --version?"),
        (["--adress", "h:1", "a.py"], "unknown option --adress. Did you mean obsloop run --address?"),
    ],
)
def test_what_is_no_good_is_refused_before_the_program_begins(words, problem, capsys):
    """Exit code 2, and the message names what was wrong."""
    assert main(words) == 2
    assert problem in capsys.readouterr().err


def test_bad_variables_are_reported_once_and_the_program_runs(tmp_path):
    """By the parent, not by each child. A bad address becomes the default of `obsloop run`."""
    script = tmp_path / "a.py"
    script.write_text(
        "import asyncio, os, subprocess, sys\n"
        "asyncio.new_event_loop().close()\n"
        "print(os.environ['OBSLOOP_RUN_WARNED'], os.environ['OTHER'], flush=True)\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'child'], check=True)\n"
    )
    variables = {"OBSLOOP_UNHEALTHY_AFTER": "soon", "OBSLOOP_LINT": "1", "OTHER": "kept"}
    result = run("run", "--address", "0", script, **variables)
    assert result.stdout == "OBSLOOP_UNHEALTHY_AFTER,OBSLOOP_LINT kept\n" * 2, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("obsloop run: ")]
    assert len(warnings) == result.stderr.count("variable") == 2
    assert "variable OBSLOOP_UNHEALTHY_AFTER: 'soon' is not accepted" in warnings[0]
    assert warnings[1].endswith("unknown variable OBSLOOP_LINT; did you mean OBSLOOP_LINTS? obsloop ignores it.")
    environ, warned = environment({"OBSLOOP_ADDRESS": "nowhere"}, address=None, name=None)
    assert environ["OBSLOOP_ADDRESS"] == "127.0.0.1:9464"
    assert warned["OBSLOOP_ADDRESS"].endswith(". obsloop uses the default, 127.0.0.1:9464.")
    # An option takes the place of a bad variable.
    assert environment({"OBSLOOP_ADDRESS": "nowhere"}, address="h:1", name=None)[1] == {}


def test_a_command_that_is_not_there(capsys):
    """127, as shells have it."""
    assert main(["run", "obsloop-no-such-command"]) == 127
    assert "command 'obsloop-no-such-command' not found" in capsys.readouterr().err


def test_a_file_that_cannot_be_executed(capsys, tmp_path):
    """126, as shells have it; here a script without a first line that says who runs it."""
    script = tmp_path / "tool"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    assert main(["run", str(script)]) == 126
    assert "#!/bin/sh" in capsys.readouterr().err


def test_version_tells_the_core(capsys):
    """What a bug report needs."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"obsloop {obsloop.__version__} (core: {obsloop.core}, Python 3.")


def test_help_goes_to_stdout_and_no_command_is_an_error(capsys):
    """`obsloop` alone shows the same text, and an exit code that a script notices."""
    for words, code in ((["--help"], 0), (["run", "--help"], 0), ([], 2)):
        assert main(words) == code
        shown = capsys.readouterr().out
        assert "usage: obsloop" in shown
        assert re.search("example:\n  obsloop run .*uvicorn app:app", shown)


def test_help_needs_no_loop():
    """`python -m obsloop` is the same command."""
    result = run("run", "--help")
    assert result.returncode == 0
    assert "--address HOST:PORT" in result.stdout


def test_the_environment_of_the_program():
    """The bootstrap folder first, once; the address from the option, the variable, or the default."""
    mine = str(BOOTSTRAP)
    result, warnings = environment({"PYTHONPATH": f"/a:{mine}:/b"}, address=None, name=None)
    assert warnings == {}
    assert result["PYTHONPATH"] == f"{mine}:/a:/b"
    assert result["OBSLOOP_ADDRESS"] == "127.0.0.1:9464"
    assert result["OBSLOOP_RUN_PID"] == str(os.getpid())
    assert "OBSLOOP_NAME" not in result
    assert environment({}, address=None, name=None)[0]["PYTHONPATH"] == mine
    assert environment({"OBSLOOP_ADDRESS": "[::1]:1"}, address=None, name=None)[0]["OBSLOOP_ADDRESS"] == "[::1]:1"
    result, _ = environment({"OBSLOOP_ADDRESS": "[::1]:1"}, address="localhost:2", name="api")
    assert (result["OBSLOOP_ADDRESS"], result["OBSLOOP_NAME"]) == ("localhost:2", "api")


def test_what_runs_which_program(tmp_path, monkeypatch):
    """Scripts and modules by this interpreter, commands by themselves: on PATH, then beside this interpreter."""
    python = sys.executable
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "app").write_text("")
    (tmp_path / "env").write_text("")
    assert resolve(["-m", "mod", "x"]) == [python, python, "-m", "mod", "x"]
    assert resolve(["none.py", "x"]) == [python, python, "none.py", "x"]
    assert resolve(["app", "x"]) == [python, python, "app", "x"]
    assert resolve(["env", "x"]) == ["/usr/bin/env", "env", "x"]
    assert resolve([os.path.basename(python)])[1:] == [os.path.basename(python)]
    assert resolve(["nonesuch"]) is None


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["python3", "a.py"], None),
        (["/usr/bin/python3.14t", "-I", "a.py"], "-I"),
        (["python", "-uE", "a.py"], "-E"),
        (["python", "-W", "-I", "a.py", "-I"], None),
        (["python", "-Wignore", "-S", "a.py"], "-S"),
        (["python", "-X", "dev", "-m", "mod", "-I"], None),
        (["python", "-c", "-I"], None),
        (["python", "--help", "-I"], "-I"),
        (["python", "-", "-I"], None),
        (["env", "-I"], None),
    ],
)
def test_a_python_that_shuts_us_out_is_noticed(words, flag):
    """-I, -E and -S: the program would run unobserved without a word."""
    assert ignores_pythonpath(words) == flag


@pytest.mark.parametrize(
    ("words", "uvloop"),
    [
        ("uvicorn app:app", True),
        ("-m uvicorn app:app --workers 4", True),
        ("uvicorn app:app --loop uvloop", True),
        ("uvicorn app:app --loop=asyncio", False),
        ("uvicorn --loop obsloop:new_event_loop app:app", False),
        ("fastapi run app.py", True),
        ("gunicorn app:app -k uvicorn.workers.UvicornWorker", True),
        ("gunicorn app:app", False),
        ("gunicorn app:app -k asgi", True),
        ("gunicorn app:app --worker-class=asgi --asgi-loop asyncio", False),
        ("hypercorn app:app", False),
        ("taskiq worker app:broker --workers 3", True),
        ("hypercorn app:app -k uvloop", True),
        ("app.py uvicorn", False),
        ("-m", False),
    ],
)
def test_whether_a_command_would_use_uvloop(words, uvloop, monkeypatch):
    """Only in the environment whose packages this interpreter sees, and only if uvloop is there."""
    monkeypatch.setattr(servers, "find_spec", lambda name: name == "uvloop" or None)
    beside = os.path.join(os.path.dirname(sys.executable), "server")
    assert servers.would_use_uvloop(words.split(), beside) is uvloop
    assert not servers.would_use_uvloop(words.split(), "/elsewhere/bin/server")
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    assert not servers.would_use_uvloop(words.split(), beside)
