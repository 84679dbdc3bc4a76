"""`obsloop run` with real programs, scripts, modules, commands: what is theirs stays theirs."""

import json
import os
import signal
import socket
import sys
import time

import pytest

from tests.cli.programs import SECONDS, Program, figure, get, run

TELL = """
import asyncio, sys
async def main():
    import obsloop
    print("observed", isinstance(asyncio.get_running_loop(), obsloop.Loop), sys.argv[1:], __name__)
asyncio.run(main())
"""

APP = """
import asyncio, os, time
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/block":
        time.sleep(5)
    body = f"{os.getpid()} {type(asyncio.get_running_loop()).__module__}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

BLOCK = """
import asyncio, os, sys, time
async def main():
    before = time.monotonic()
    await asyncio.sleep(0.2)
    print("blocking", before, flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print("moving on", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
"""Blocks its loop until there is a file of the name that it is given."""


@pytest.fixture
def script(tmp_path):
    """Write a program to a file; return its path."""

    def write(text, name="program.py"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_script_with_arguments_that_look_like_ours(script):
    """It runs as __main__ on an observed loop, and gets every word that follows it."""
    result = run("run", "--address", "127.0.0.1:0", script(TELL), "--address", "1", "-m")
    assert result.stdout == "observed True ['--address', '1', '-m'] __main__\n"
    assert result.stderr.startswith("obsloop: serving http://127.0.0.1:")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 0


def test_a_file_of_another_name_and_a_module(script, tmp_path):
    """A file that is not executable is taken for a Python script; -m is Python's own."""
    path = script(TELL, "program")
    assert run("run", "--address", "127.0.0.1:0", path, "x").stdout == "observed True ['x'] __main__\n"
    script(TELL, "amodule.py")
    result = run("run", "--address=127.0.0.1:0", "-m", "amodule", "--name", "y", cwd=tmp_path)
    assert result.stdout == "observed True ['--name', 'y'] __main__\n"


def test_a_command_and_its_python_children(script):
    """Here a shell that starts Python: what a container's entry point often is."""
    result = run("run", "--address", "127.0.0.1:0", "sh", "-c", f'"{sys.executable}" "{script(TELL)}" z')
    assert result.stdout == "observed True ['z'] __main__\n"


def test_a_command_that_is_no_python_at_all():
    """Its streams, its exit code; nothing of ours on them."""
    result = run("run", "sh", "-c", "cat; echo to-stderr >&2; exit 7", stdin="through\n")
    assert (result.returncode, result.stdout, result.stderr) == (7, "through\n", "to-stderr\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise RuntimeError('x')", 1),
        ("import asyncio\nasync def main(): raise SystemExit(5)\nasyncio.run(main())", 5),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("this is no python", 1),
    ],
)
def test_the_exit_code_is_the_programs(script, text, code):
    """A parent, a shell or an orchestrator sees what it would have seen."""
    assert run("run", "--address", "127.0.0.1:0", script(text)).returncode == code


def test_the_program_is_the_process_that_was_started(script):
    """exec, no child: `ps`, signals and a supervisor's wait all reach the program itself."""
    with Program("--address", "127.0.0.1:0", script("import os; print('pid', os.getpid(), flush=True)")) as program:
        assert int(program.line(r"^pid (\d+)")[1]) == program.process.pid
        assert program.wait() == 0


@pytest.mark.parametrize("to_all", [False, True])
def test_ctrl_c_ends_it_as_it_ends_without_us(script, to_all):
    """asyncio's rule: the main task is cancelled, then KeyboardInterrupt leaves the program."""
    text = """
import asyncio
async def main():
    print("ready", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("cancelled", flush=True)
asyncio.run(main())
"""
    # A busy machine holds the loop up, too: a log line of that may come after the traceback.
    with Program("--address", "127.0.0.1:0", script(text), OBSLOOP_UNHEALTHY_AFTER="600") as program:
        program.line("^ready")
        program.send(signal.SIGINT, to_all=to_all)
        assert program.wait() == -signal.SIGINT
    assert "cancelled" in program.lines
    assert program.lines[-1].startswith("KeyboardInterrupt")


def blocked_for(url):
    """Seconds, as /metrics has it."""
    status, text = get(url + "/metrics")
    assert status == 200
    return figure(text, "asyncio_eventloop_blocked_time_seconds")


def until(condition, what):
    """Wait until `condition()` holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_metrics_and_health_while_the_loop_is_blocked(script, tmp_path):
    """A callback goes on until it is let go, which is after both answers: they come meanwhile, and say that it does."""
    over = tmp_path / "over"
    with Program("--address", "127.0.0.1:0", "--name", "api", script(BLOCK), over) as program:
        url = program.url()
        before = float(program.line("^blocking (.*)")[1])  # by the clock that all processes share
        until(lambda: get(url + "/healthz")[0] == 503, "the loop is blocked, and called healthy")
        (blocked,) = json.loads(get(url + "/healthz")[1])["blocked_seconds"].items()
        assert blocked[0] == "api"
        assert 1.0 < blocked[1] <= time.monotonic() - before
        assert 1.0 < blocked_for(url) <= time.monotonic() - before
        over.touch()
        program.line("^moving on")
        until(lambda: get(url + "/healthz")[0] == 200, "the loop runs, and is called unhealthy")
        assert json.loads(get(url + "/healthz")[1])["status"] == "ok"


def test_how_long_is_too_long_can_be_set(script, tmp_path):
    """OBSLOOP_UNHEALTHY_AFTER: a program with long callbacks is not to be restarted for them."""
    words = ("--address", "127.0.0.1:0", script(BLOCK), tmp_path / "never")
    with Program(*words, OBSLOOP_UNHEALTHY_AFTER="60") as program:
        url = program.url()
        program.line("^blocking")
        until(lambda: blocked_for(url) > 1.2, "the loop is blocked, and /metrics does not know")
        status, health = get(url + "/healthz")
        assert status == 200
        assert json.loads(health)["unhealthy_after_seconds"] == 60


def test_uvicorn_unmodified(tmp_path):
    """`obsloop run uvicorn app:app`: real requests, and the figures of the loop that answers them."""
    pytest.importorskip("uvicorn")
    (tmp_path / "app.py").write_text(APP)
    with Program(
        "--address", "127.0.0.1:0", "uvicorn", "app:app", "--port", "0", "--loop", "asyncio", cwd=tmp_path
    ) as it:
        url = it.url()
        app = it.line(r"Uvicorn running on (http://\S+)")[1]
        for _ in range(20):
            assert get(app + "/")[1].split()[1].startswith("obsloop")
        status, text = get(url + "/metrics")
        assert status == 200
        assert figure(text, "asyncio_eventloop_callback_duration_seconds_count") >= 20
        it.send(signal.SIGINT)
        assert it.wait() in (0, -signal.SIGINT)


def test_a_port_in_use_leaves_the_program_running(script):
    """One line that names the port and how to choose another; the program does its work, observed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("run", "--address", f"127.0.0.1:{port}", script(TELL))
    assert result.returncode == 0
    assert result.stdout.startswith("observed True")
    assert f"cannot serve on 127.0.0.1:{port}: the port {port} is in use" in result.stderr
    assert "--address HOST:PORT" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_prometheus_client_the_rest_of_the_service_works(script, tmp_path):
    """/metrics says what to install; /healthz and the index answer."""
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "prometheus_client.py").write_text("raise ModuleNotFoundError(\"No module named 'prometheus_client'\")")
    path = os.pathsep.join(filter(None, [str(blocker), os.environ.get("PYTHONPATH")]))
    text = "import asyncio\nasync def main(): await asyncio.sleep(3600)\nasyncio.run(main())"
    with Program("--address", "127.0.0.1:0", script(text), PYTHONPATH=path) as program:
        url = program.url()
        status, answer = get(url + "/metrics")
        assert status == 501
        assert 'pip install "obsloop[prometheus]"' in answer
        assert get(url + "/healthz")[0] == 200
        assert get(url + "/")[0] == 200
