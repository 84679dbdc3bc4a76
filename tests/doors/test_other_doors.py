"""A notebook's kernel and two test runners make the loop themselves. Each is started by its users' own line."""

import os
import re
import subprocess
import sys

import pytest

from tests.doors.conftest import ports
from tests.doors.running import LIMIT, get, until

pytestmark = [pytest.mark.clients, pytest.mark.once]
BY_BLOCK = re.compile(
    r'^asyncio_eventloop_block_time_seconds_total\{.*code_function_name="\w+\.block".*\} (\S+)$', re.M
)

TESTS = """
import asyncio, sys, time, urllib.request
import pytest

def block():
    time.sleep(0.4)

def page():
    return urllib.request.urlopen("http://ADDRESS/metrics").read().decode()

@pytest.mark.MARKER
@pytest.mark.obsloop(max_block=10)
async def test_it():
    block()
    await asyncio.sleep(0)
    for _ in range(300):
        if 'code_function_name="test_it.block"' in (text := await asyncio.to_thread(page)):
            print(text)
            return
        await asyncio.sleep(0.1)
    raise AssertionError(text)
"""


def seconds_blocked(page: str) -> float:
    """Return how long ``block`` has blocked, all in all."""
    return sum(map(float, BY_BLOCK.findall(page)))


def environ(**variables: str) -> dict[str, str]:
    """Return a user's environment, with ours activated."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OBSLOOP_", "PYTEST_")) or k == "OBSLOOP_PURE"}
    return kept | {"PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])} | variables


@pytest.mark.parametrize("line", ["instrument", "run"])
def test_a_notebook(line, tmp_path):
    """A cell that blocks is seen while it does; the kernel ends as without obsloop."""
    from jupyter_client.manager import KernelManager

    (port,) = ports(1)
    address = f"127.0.0.1:{port}"
    manager = KernelManager(connection_file=str(tmp_path / "kernel.json"))
    kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.kernel_spec.argv = ["obsloop", "run", "--address", address, *kernel] if line == "run" else kernel
    log = tmp_path / "log"
    with log.open("w") as stderr:
        manager.start_kernel(
            env=environ(OBSLOOP_ADDRESS=address, OBSLOOP_UNHEALTHY_AFTER="0.5", XDG_RUNTIME_DIR=str(tmp_path)),
            cwd=str(tmp_path), stderr=stderr, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=LIMIT)
        if line == "instrument":
            reply = client.execute_interactive("import obsloop\nloop = obsloop.instrument()", timeout=LIMIT)
            assert reply["content"]["status"] == "ok", reply
        until(lambda: get(f"http://{address}/healthz")[0] == 200, "the kernel is served")
        client.execute("import time\ndef block():\n    time.sleep(3)\nblock()")
        until(lambda: get(f"http://{address}/healthz")[0] == 503, "a blocked kernel is unhealthy")
        until(lambda: seconds_blocked(get(f"http://{address}/metrics")[1]) >= 3, "the block is counted")
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
    served = [text for text in log.read_text().splitlines() if "obsloop" in text and "event loop" not in text]
    assert len(served) == (1 if line == "run" else 0), log.read_text()


@pytest.mark.parametrize("marker", ["asyncio", "anyio"])
def test_a_test_runner(marker, tmp_path):
    """pytest-asyncio's and anyio's loops are observed under `obsloop run`, and pytest says what it says without."""
    (port,) = ports(1)
    address = f"127.0.0.1:{port}"
    text = TESTS.replace("ADDRESS", address).replace("MARKER", marker)
    if marker == "anyio":
        text += '\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    (tmp_path / "test_it.py").write_text(text)
    done = subprocess.run(
        ["obsloop", "run", "--address", address, "pytest", "-s", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path, env=environ(XDG_RUNTIME_DIR=str(tmp_path)), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=2 * LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert seconds_blocked(done.stdout) >= 0.4
    lines = [line for line in done.stderr.splitlines() if "event loop" not in line]
    assert lines == [f"obsloop: serving http://{address}/metrics"]
