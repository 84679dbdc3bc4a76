"""Real worker processes of one group, that do what a test tells them; used by this folder's tests only."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

from obsloop.base import clock
from obsloop.group import slots

PROGRAM = """
import asyncio, ctypes, sys, time
import obsloop

def read():
    return sys.stdin.readline().split()

def block(seconds):
    time.sleep(seconds)

def hold_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))

async def main():
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while words := await loop.run_in_executor(None, read):
        what, seconds = words[0], float(words[1])
        if what == "block":
            block(seconds)
        elif what == "hold":
            hold_the_gil(seconds)
        print("done", flush=True)

obsloop.run(main())
"""
SECONDS = 60
"""How long to wait for what must happen. Nothing is asserted about it."""


class Worker:
    """One process."""

    def __init__(self, folder, address, **variables):
        environ = {key: value for key, value in os.environ.items() if not key.startswith("OBSLOOP_")}
        environ |= {"XDG_RUNTIME_DIR": str(folder), "OBSLOOP_ADDRESS": address, "OBSLOOP_LOG_BLOCKED_AFTER": "3600"}
        if "OBSLOOP_PURE" in os.environ:
            environ["OBSLOOP_PURE"] = os.environ["OBSLOOP_PURE"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.wait_for("ready")

    def wait_for(self, word):
        """Read the next line, which must be `word`."""
        line = self.process.stdout.readline()
        assert line == f"{word}\n", (line, self.process.stderr.read())

    def send(self, what, seconds):
        """Let the worker do something, and do not wait for it."""
        self.process.stdin.write(f"{what} {seconds}\n")
        self.process.stdin.flush()

    def do(self, what, seconds):
        """Let the worker do something, and wait for its end."""
        self.send(what, seconds)
        self.wait_for("done")

    def signal(self, number):
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self):
        """End it at once, as the system does when memory is short."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        """Let it end as a program does."""
        self.process.stdin.close()
        self.process.wait(SECONDS)

    def close(self):
        """End it in any state."""
        with contextlib.suppress(OSError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class Group:
    """Several workers with one address, and what that address answers."""

    def __init__(self, folder, n):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        self.folder = folder
        self.address = f"127.0.0.1:{self.port}"
        self.workers = [Worker(folder, self.address) for _ in range(n)]

    def add(self, **variables):
        """Start one more."""
        self.workers.append(Worker(self.folder, self.address, **variables))
        return self.workers[-1]

    def get(self, path):
        """Return status and body of the answer to a new client."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self):
        """Return status and report of /healthz."""
        status, body = self.get("/healthz")
        return status, json.loads(body)

    def metric(self, name, **labels):
        """Return the sum of the series with these labels; None if there is none."""
        found = [
            float(line.rpartition(" ")[2])
            for line in self.get("/metrics")[1].splitlines()
            if re.match(rf"{name}(\{{|\s)", line) and all(f'{key}="{value}"' in line for key, value in labels.items())
        ]
        return sum(found) if found else None

    def silent_seconds(self, number):
        """Return how long ago a worker wrote its heartbeat, without asking any of them."""
        folder = next(self.folder.glob("obsloop/at-*"))
        return (clock.monotonic_ns() - slots.read(str(folder), number).state["at_ns"]) / 1e9

    def json(self, path):
        """Return a page as JSON."""
        return json.loads(self.get(f"{path}{'&' if '?' in path else '?'}format=json")[1])

    def close(self):
        """End all."""
        for worker in self.workers:
            worker.close()
