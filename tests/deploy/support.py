"""What the tests of deploy/ share: where the files are, what runs a tool, and patience."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LIMIT = 60.0
"""Seconds after which something will not happen any more. Far above what the busiest machine needs."""


def check(*command: object, cwd: Path = ROOT, environ: dict[str, str] | None = None) -> str:
    """Run a tool, which has to be content; what it said."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=os.environ | (environ or {}), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]}: {done.stdout}"
    return done.stdout


def free_ports(number: int) -> int:
    """The first of so many ports in a row that nobody listens on at this moment."""
    # Tests in other processes look for ports at the same time: each begins somewhere else.
    begin = 21000 + os.getpid() % 70 * 100
    for first in range(begin, 29000, number):
        sockets = []
        try:
            for port in range(first, first + number):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    pytest.fail("no free ports in a row")


def get(url: str) -> str:
    """The body of a page."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def eventually(look, why: str):
    """The first true answer; what cannot be reached yet is no answer."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            if answer := look():
                return answer
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"not within {LIMIT} s: {why}")
