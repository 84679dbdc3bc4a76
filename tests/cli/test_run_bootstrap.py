"""The start inside each Python process: other sitecustomizes, other environments, interpreters that shut us out."""

import os
import subprocess
import sys
import venv

import pytest

from obsloop.cli.run import BOOTSTRAP
from tests.cli.programs import obsloop, run

LOOP = "import asyncio, sys; loop = asyncio.new_event_loop(); loop.close(); print(type(loop).__module__, *sys.argv[1:])"


def path_with(folder):
    """PYTHONPATH with `folder` before what the tests themselves were started with."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def python(*words, **variables):
    """`obsloop run python WORDS`, without a service."""
    return run("run", "--address", "127.0.0.1:0", sys.executable, *words, **variables)


def test_the_next_sitecustomize_is_run_and_is_the_module(tmp_path):
    """Only the first found is run by Python: ours hands on to the one that would have been run."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.ran = (__name__, __file__)\nVALUE = 42\n")
    code = "import sys, sitecustomize; print(sys.ran, sitecustomize.VALUE); " + LOOP
    result = python("-c", code, PYTHONPATH=path_with(tmp_path))
    assert result.stdout.splitlines() == [
        f"('sitecustomize', '{tmp_path / 'sitecustomize.py'}') 42",
        "obsloop.loop.loop",
    ]


def test_an_error_in_the_next_one_is_reported_as_without_us_and_the_program_is_observed(tmp_path):
    """Python's own words for it, and no more."""
    (tmp_path / "sitecustomize.py").write_text("raise RuntimeError('theirs')\n")
    result = python("-c", LOOP, PYTHONPATH=path_with(tmp_path))
    assert result.stdout == "obsloop.loop.loop\n"
    plain = subprocess.run(
        [sys.executable, "-c", "pass"],
        env=dict(os.environ, PYTHONPATH=path_with(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stderr in result.stderr


def test_a_next_one_that_imports_asyncio_itself(tmp_path):
    """The class is found where it is already, and what was taken from it before makes observed loops too."""
    (tmp_path / "sitecustomize.py").write_text("import asyncio, sys\nsys.taken = asyncio.SelectorEventLoop\n")
    code = "import sys; loop = sys.taken(); loop.close(); print(type(loop).__module__)"
    assert python("-c", code, PYTHONPATH=path_with(tmp_path)).stdout == "obsloop.loop.loop\n"


def test_the_program_sees_the_path_that_it_would_have_seen():
    """The bootstrap folder is on PYTHONPATH for the children, and not on sys.path."""
    code = "import sys, os; print(sys.path, 'asyncio' in sys.modules, 'obsloop' in sys.modules)"
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    plain = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert python("-c", code).stdout == plain.stdout
    assert plain.stdout.endswith(" False False\n")  # a process without a loop does not pay for one


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_a_python_that_ignores_its_environment_runs_unobserved_and_that_is_said(flag):
    """Nothing can be done from outside about -I, -E and -S but to say so."""
    result = python(flag, "-c", LOOP, "x")
    assert result.returncode == 0
    assert result.stdout == "asyncio.unix_events x\n"
    assert f"{flag} ignores PYTHONPATH" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory):
    """A virtual environment of this interpreter with nothing in it, obsloop not either."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


def test_another_environment_gets_obsloop_and_nothing_else_of_ours(empty_environment):
    """Our site-packages must not get onto its path: its program would import our versions of things."""
    code = (
        "import importlib.util, sys\n"
        "names = ('pytest', 'prometheus_client', 'obsloop_exporters')\n"
        "print([name for name in names if importlib.util.find_spec(name)])\n" + LOOP
    )
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        obsloop("run", "--address", "127.0.0.1:0", empty_environment / "bin/python", "-c", code),
        env=environ,
        cwd=empty_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "[]\nobsloop.loop.loop\n", result.stderr


def test_where_obsloop_cannot_be_imported_the_program_runs_with_one_line(tmp_path):
    """A broken installation of it in the program's environment, for instance."""
    (tmp_path / "obsloop.py").write_text("raise ImportError('broken on purpose')\n")
    code = "import asyncio; [asyncio.new_event_loop().close() for _ in range(3)]; " + LOOP
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(BOOTSTRAP), path_with(tmp_path)])),
        cwd=tmp_path,  # -c puts it first, and the tests may run in a checkout
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "asyncio.unix_events\n"
    assert result.stderr.count("\n") == 1
    assert "broken on purpose. The program runs on, not observed." in result.stderr


def test_a_setting_gone_bad_in_a_child_does_not_break_its_loops():
    """`obsloop run` checks what it sets; a program may set what it likes for its children. They are observed too."""
    result = subprocess.run(
        [sys.executable, "-c", LOOP],
        env=dict(os.environ, PYTHONPATH=path_with(BOOTSTRAP), OBSLOOP_ADDRESS="nonsense"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "obsloop.loop.loop\n"
    assert result.stderr.count("\n") == 1
    assert "OBSLOOP_ADDRESS" in result.stderr


def test_a_python_that_is_too_old_says_so_in_one_line():
    """Its version pretended here: the newest that cannot run an observed loop."""
    code = f"import runpy, sys; sys.version_info = (3, 10, 9); runpy.run_path({str(BOOTSTRAP / 'sitecustomize.py')!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed. The program runs on." in result.stderr


def test_the_bootstrap_reads_on_any_python_3():
    """No newer syntax in it: whatever Python the program calls reads this file."""
    import ast

    source = (BOOTSTRAP / "sitecustomize.py").read_text()
    ast.parse(source, feature_version=(3, 5))
    assert "from __future__" not in source
