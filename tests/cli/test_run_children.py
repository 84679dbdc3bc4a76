"""Children of an observed program are observed too, whatever way they are started. One address answers for all."""

import json
import re
import signal
import sys

import pytest

from tests.blocking.support import until
from tests.cli.programs import Program, get, run
from tests.cli.test_run_programs import APP

WORK = """
import asyncio, multiprocessing, os, subprocess, sys, warnings
def work():
    async def main():
        import obsloop
        loop = asyncio.get_running_loop()
        is_child = os.environ["OBSLOOP_RUN_PID"] != str(os.getpid())
        print("observed", isinstance(loop, obsloop.Loop), is_child, flush=True)
    asyncio.run(main())
"""

MULTIPROCESSING = (
    WORK
    + """
if __name__ == "__main__":
    async def parent(): pass
    asyncio.run(parent())  # the parent's own service has the port
    process = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
)


@pytest.fixture
def free_port():
    """A port that was free a moment ago: a fixed one, since children must find it taken."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing(tmp_path, method, free_port):
    """Each start method: the child is observed, and served where its parent is; one line says where."""
    path = tmp_path / "program.py"
    path.write_text(MULTIPROCESSING)
    result = run("run", "--address", f"127.0.0.1:{free_port}", path, method, PYTHONWARNINGS="ignore")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "observed True True\n"
    assert result.stderr == f"obsloop: serving http://127.0.0.1:{free_port}/metrics\n"


def test_a_python_that_the_program_starts(tmp_path):
    """By subprocess, as many servers start their workers."""
    worker, path = tmp_path / "worker.py", tmp_path / "program.py"
    worker.write_text(WORK + "\nwork()\n")
    path.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, {str(worker)!r}], check=True)")
    assert run("run", "--address", "127.0.0.1:0", path).stdout == "observed True True\n"


def test_a_child_of_plain_fork(tmp_path, free_port):
    """os.fork beside a loop that has run: the parent's service goes on, and the child is a worker of its group."""
    path = tmp_path / "program.py"
    path.write_text(
        WORK
        + """
import urllib.request
warnings.simplefilter("ignore")
async def parent(): pass
asyncio.run(parent())
if os.fork() == 0:
    work()
    os._exit(0)
os.wait()
url = "http://" + os.environ["OBSLOOP_ADDRESS"] + "/healthz"
print("parent", urllib.request.urlopen(url, timeout=60).status)
"""
    )
    result = run("run", "--address", f"127.0.0.1:{free_port}", path)
    assert result.stdout == "observed True True\nparent 200\n", result.stderr
    assert len(re.findall("obsloop: serving", result.stderr)) == 1


def test_uvicorn_with_workers(tmp_path):
    """Two workers: both observed, one address for both; Ctrl-C ends them all."""
    pytest.importorskip("uvicorn")
    (tmp_path / "app.py").write_text(APP)
    words = (
        "--address",
        "127.0.0.1:0",
        "uvicorn",
        "app:app",
        "--port",
        "0",
        "--workers",
        "2",
        "--loop",
        "asyncio",
    )
    with Program(*words, cwd=tmp_path) as program:
        app = program.line(r"Uvicorn running on (http://\S+)")[1]
        url = program.url()
        assert get(url + "/metrics")[0] == 200
        until(lambda: len(json.loads(get(url + "/healthz")[1])["workers"]) == 2)
        pids = {str(worker["process"]) for worker in json.loads(get(url + "/healthz")[1])["workers"].values()}
        pid, module = get(app + "/")[1].split()
        assert pid in pids
        assert module.startswith("obsloop")
        program.send(signal.SIGINT, to_all=True)
        assert program.wait() in (0, -signal.SIGINT)


def test_a_child_of_another_program_does_not_name_the_first_process(tmp_path):
    """`obsloop run` within `obsloop run`: the inner one's program is a first process again."""
    path = tmp_path / "program.py"
    path.write_text("import os; print(os.environ['OBSLOOP_RUN_PID'] == str(os.getpid()), os.environ['PYTHONPATH'])")
    result = run("run", sys.executable, "-m", "obsloop", "run", path)
    first, pythonpath = result.stdout.split(" ", 1)
    assert first == "True"
    assert pythonpath.count("bootstrap") == 1
