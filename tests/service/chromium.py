"""Headless Chromium for tests of the pages, over its debugging pipe: JSON messages that end with a zero byte."""

import base64
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import LIMIT

# The browser reads from descriptor 3 and writes to descriptor 4.
_START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(reads, 3), os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One browser with one tab. ``errors`` has what its console and its log call an error, such as refused content."""

    def __init__(self, program: str, folder: Path) -> None:
        self.errors: list[str] = []
        self._received = b""
        self._number = 0
        self._loaded = 0
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        arguments = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={folder}",
        ]  # fmt: skip
        with (folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(reads), str(writes), *arguments],
                pass_fds=(reads, writes), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                env={**os.environ, "HOME": str(folder)},
            )  # fmt: skip
        os.close(reads)
        os.close(writes)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def show(self, url: str, *, width: int, height: int, dark: bool = False) -> None:
        """Open a page in a window of this size, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        before = self._loaded
        self._call("Page.navigate", url=url)
        self.wait_until(lambda: self._loaded > before)

    def value(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_until(self, done: Any) -> None:
        """Take the browser's messages until ``done()`` is true."""
        end = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < end, "the browser did not get there in time"
            self._take(0.1)

    def picture(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._ask(method, self._session, **parameters)

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + LIMIT
        while True:
            assert time.monotonic() < end, f"no answer to {method}"
            for answer in self._take(1.0):
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return answer["result"]

    def _take(self, seconds: float) -> list[dict[str, Any]]:
        """Return the messages that have arrived, and note the events among them."""
        if select.select([self._in], [], [], seconds)[0]:
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._received += data
        *parts, self._received = self._received.split(b"\0")
        messages = [json.loads(part) for part in parts]
        for message in messages:
            parameters = message.get("params", {})
            if message.get("method") == "Page.loadEventFired":
                self._loaded += 1
            elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                self.errors.append(parameters["entry"]["text"])
            elif message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"]))
            elif message.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
                self.errors.append(json.dumps(parameters["args"]))
        return messages
