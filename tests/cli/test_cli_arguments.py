"""The command line: whose option is whose, what is refused, what becomes the program."""

import os
import sys

import pytest

import obsloop
from obsloop.cli import main
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
        (["run", "--adress", "h:1", "a.py"], "--adress"),
        (["run", "--addr", "h:1", "a.py"], "--addr"),
        (["run", "-x", "a.py"], "-x"),
        (["run", "--address"], "--address"),
        (["run", "--address", "nonsense", "a.py"], "address: 'nonsense' is not accepted"),
        (["run", "--name", "", "a.py"], "name: '' is not accepted"),
        (["walk"], "walk"),
        (["--fast"], "--fast"),
    ],
)
def test_what_is_no_good_is_refused_before_the_program_begins(words, problem, capsys):
    """Exit code 2, and the message names what was wrong."""
    assert main(words) == 2
    assert problem in capsys.readouterr().err


def test_a_bad_variable_is_refused_by_its_name(capsys, monkeypatch):
    """The source of a bad value is where somebody has to look for it."""
    monkeypatch.setenv("OBSLOOP_UNHEALTHY_AFTER", "soon")
    assert main(["run", "a.py"]) == 2
    error = capsys.readouterr().err
    assert "OBSLOOP_UNHEALTHY_AFTER" in error
    assert "'soon'" in error


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
        assert "usage: obsloop" in capsys.readouterr().out


def test_help_needs_no_loop():
    """`python -m obsloop` is the same command."""
    result = run("run", "--help")
    assert result.returncode == 0
    assert "--address HOST:PORT" in result.stdout


def test_the_environment_of_the_program():
    """The bootstrap folder first, once; the address from the option, the variable, or the default."""
    mine = str(BOOTSTRAP)
    result = environment({"PYTHONPATH": f"/a:{mine}:/b"}, address=None, name=None)
    assert result["PYTHONPATH"] == f"{mine}:/a:/b"
    assert result["OBSLOOP_ADDRESS"] == "127.0.0.1:9464"
    assert result["OBSLOOP_RUN_PID"] == str(os.getpid())
    assert "OBSLOOP_NAME" not in result
    assert environment({}, address=None, name=None)["PYTHONPATH"] == mine
    assert environment({"OBSLOOP_ADDRESS": "[::1]:1"}, address=None, name=None)["OBSLOOP_ADDRESS"] == "[::1]:1"
    result = environment({"OBSLOOP_ADDRESS": "[::1]:1"}, address="localhost:2", name="api")
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
