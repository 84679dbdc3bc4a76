"""Starts real programs under `obsloop run` and reads what they say; used by this folder's tests only."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

SECONDS = 60  # for a start on a busy machine; nothing is asserted about it
SERVING = re.compile(r"^obsloop: serving (http://\S+)/metrics")


def clean_environ(**variables):
    """The environment of the tests without what an outer `obsloop run` would have left in it."""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith("OBSLOOP_") or key == "OBSLOOP_PURE"
    }
    return environ | {"PYTHONUNBUFFERED": "1"} | variables


def obsloop(*words):
    """The command line of the `obsloop` command of this interpreter."""
    return [sys.executable, "-m", "obsloop", *map(str, words)]


def run(*words, cwd=None, stdin="", **variables):
    """Run `obsloop WORDS` to its end; return exit code, stdout and stderr."""
    return subprocess.run(
        obsloop(*words),
        cwd=cwd,
        env=clean_environ(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


class Program:
    """A program under `obsloop run`, with its output as lines that can be waited for. `command`: without obsloop."""

    def __init__(self, *words, cwd=None, command=None, **variables):
        self.process = subprocess.Popen(
            command or obsloop("run", *words),
            cwd=cwd,
            env=clean_environ(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that stop() ends its children too, and Ctrl-C can go to them all
        )
        self.lines = []
        self._queue = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def line(self, pattern):
        """The match of the next line that `pattern` is found in."""
        end = time.monotonic() + SECONDS
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line {pattern!r} in {self.lines}") from None
            if line is None:
                raise AssertionError(f"the program ended without a line {pattern!r}: {self.lines}")
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match

    def url(self):
        """The next URL that it says it serves."""
        return self.line(SERVING)[1]

    def send(self, number, *, to_all=False):
        """Send a signal to the program, or to all of its session as a terminal does for Ctrl-C."""
        (os.killpg if to_all else os.kill)(self.process.pid, number)

    def wait(self):
        """Its exit code; its remaining lines are in `lines`."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        while not self._queue.empty():
            self.lines.append(self._queue.get())
        self.lines = [line for line in self.lines if line is not None]
        return code

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        self.process.stdout.close()


def get(url, **headers):
    """Status and text of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figure(text, name):
    """The sum of a figure's samples in an answer of /metrics."""
    samples = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert samples, f"{name} is not in /metrics"
    return sum(map(float, samples))
