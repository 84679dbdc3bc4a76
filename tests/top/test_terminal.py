"""The command in a real terminal, which tmux provides: 80 columns, 24 lines, and no colour."""

import os
import signal
import subprocess
import sys

import pytest

from obsloop.group.folder import name_for
from tests.blocking.support import until
from tests.parts import needed

SECONDS = 60


@pytest.fixture
def terminal(tmp_path):
    """A function that starts a command in a terminal and returns one that shows its screen, and one that types."""
    tmux = needed("tmux", "tmux")
    command = [tmux, "-S", str(tmp_path / "tmux"), "-f", os.devnull]

    def start(words, **variables):
        environ = os.environ | {"NO_COLOR": "1"} | variables
        new = [*command, "new-session", "-d", "-x", "80", "-y", "24", f"{words}; echo ended with $?; exec cat"]
        subprocess.run(new, check=True, env=environ)

        def screen():
            return subprocess.run([*command, "capture-pane", "-p"], check=True, capture_output=True, text=True).stdout

        def press(*keys):
            subprocess.run([*command, "send-keys", *keys], check=True)

        return screen, press

    yield start
    subprocess.run([*command, "kill-server"], check=False, capture_output=True)


def test_top_in_a_terminal(terminal, workers, place):
    """It shows both workers, the block of one while it lasts, a stopped one, and leaves the terminal as it was."""
    # Tests that run beside this one have groups too.
    group = name_for(workers.address, {})
    screen, press = terminal(f"{sys.executable} -m obsloop top {group}", XDG_RUNTIME_DIR=str(place))
    one, other = workers.workers
    until(lambda: all(str(worker.process.pid) in screen() for worker in workers.workers), SECONDS)
    assert "? help  q quit" in screen()
    assert max(map(len, screen().splitlines())) <= 80
    one.send("block", 60.0)
    until(lambda: "BLOCKED NOW for" in screen() and "in __main__.block" in screen(), SECONDS)
    other.signal(signal.SIGSTOP)
    until(lambda: "STOPPED" in screen(), SECONDS)
    assert "2 BLOCKED NOW" in screen()
    press("3")
    until(lambda: "[3 Tasks]" in screen() and "__main__.main" in screen(), SECONDS)
    press("?")
    until(lambda: "Any key goes back" in screen(), SECONDS)
    press("x")
    until(lambda: "[3 Tasks]" in screen(), SECONDS)
    press("q")
    until(lambda: "ended with 0" in screen(), SECONDS)


def test_once_prints_a_table_and_json_without_textual(workers, place, tmp_path):
    """For scripts: no terminal is needed. Without Textual, the application says what to install."""
    import json

    (tmp_path / "textual.py").write_text("raise ImportError('there is no Textual')")
    environ = os.environ | {"XDG_RUNTIME_DIR": str(place), "PYTHONPATH": str(tmp_path), "COLUMNS": "80"}

    def top(*words):
        command = [sys.executable, "-m", "obsloop", "top", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    workers.workers[0].do("block", 0.3)
    process = str(workers.workers[0].process.pid)
    until(lambda: "__main__.block" in top("--once", name_for(workers.address, {})).stdout, SECONDS)
    printed = top("--once", process)
    assert printed.returncode == 0
    assert process in printed.stdout
    assert max(map(len, printed.stdout.splitlines())) <= 80
    found = json.loads(top("--json", process).stdout)
    (group,) = found["groups"]
    assert [loop["process"] for loop in group["loops"]] == [int(process)]
    assert group["loops"][0]["last_block"]["function"] == "__main__.block"
    assert top("--once", "no-such-group").returncode == 1
    assert "no group 'no-such-group'" in top("--once", "no-such-group").stderr
    assert top("a b").returncode == 2
    assert "Did you mean --once?" in top("--onc").stderr
    assert "no terminal" in top().stderr
