"""Real servers for the clients to talk to: started on loopback, with their data in a folder of their own, and stopped.

A server that cannot be started is a failure. PostgreSQL refuses to run as root,
so there it runs as another user; and a folder of that user's cannot be below pytest's, which only root may enter.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import parts
from tests.parts import needed

LIMIT = 60.0
"""Seconds after which a server is taken not to start. Far above what the busiest machine needs."""

READY = "ready to accept connections"
"""What both servers log, in some case of letters, once they listen."""


@dataclass(frozen=True)
class Address:
    """Where a server listens: on 127.0.0.1, and on a socket in the file system."""

    port: int
    path: Path


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Place:
    """A folder that goes away afterwards, and the user that works in it: root's servers run as somebody else."""

    def __init__(self, stack: contextlib.ExitStack, name: str, *accounts: str) -> None:
        # A short path: that of a socket in it has 107 bytes at most.
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"obsloop-{name}-")))
        self.user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = _account(*accounts, "nobody")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self.user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        # Nothing from outside says how a server or its client is to be configured.
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}

    def reachable(self, program: str) -> str:
        """The path by which this place's user can start the program."""
        return parts.reachable(program, self.user["user"], self.folder) if self.user else program

    def run(self, *command: str) -> None:
        """A command that has to succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            **self.user,
        )
        if done.returncode:
            pytest.fail(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}", pytrace=False)

    @contextlib.contextmanager
    def serve(self, *command: str, stop: signal.Signals) -> Iterator[None]:
        """A server, from the moment that it is ready; stopped whatever happens, and with this process if that dies."""
        log = self.folder / "log"
        # A session of its own: Ctrl-C is for the tests, which stop it in their order.
        leash = ["setpriv", "--pdeathsig", stop.name.removeprefix("SIG")] if shutil.which("setpriv") else []
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*leash, *command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                **self.user,
            )
        try:
            end = time.monotonic() + LIMIT
            while READY not in log.read_text(errors="replace").lower():
                if process.poll() is not None or time.monotonic() > end:
                    text = log.read_text(errors="replace")
                    pytest.fail(f"{' '.join(command)} did not start (exit {process.poll()}):\n{text}", pytrace=False)
                time.sleep(0.02)
            yield
            assert process.poll() is None, f"{command[0]} ended during the tests:\n{log.read_text(errors='replace')}"
        finally:
            process.send_signal(stop)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _account(*names: str) -> pwd.struct_passwd:
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.fail(f"servers do not run as root, and none of these users exists: {', '.join(names)}", pytrace=False)


@contextlib.contextmanager
def postgresql() -> Iterator[Address]:
    """PostgreSQL with an empty database, which trusts everybody on this machine."""
    programs = [needed(program, "postgresql") for program in ("initdb", "postgres")]
    with contextlib.ExitStack() as stack:
        place = Place(stack, "postgresql", "postgres")
        initdb, postgres = map(place.reachable, programs)
        data, port = place.folder / "data", free_port()
        place.run(
            initdb, f"--pgdata={data}", "--username=obsloop", "--auth=trust", "--encoding=UTF8", "--no-locale",
            "--no-sync",
        )  # fmt: skip
        stack.enter_context(
            place.serve(
                postgres, "-D", str(data), "-p", str(port), "-F", "-c", "listen_addresses=127.0.0.1",
                "-c", f"unix_socket_directories={place.folder}", "-c", "ssl=off", stop=signal.SIGINT,
            )
        )  # fmt: skip
        yield Address(port, place.folder)


@contextlib.contextmanager
def redis() -> Iterator[Address]:
    """Redis, which keeps nothing on disk."""
    program = needed("redis-server", "redis")
    with contextlib.ExitStack() as stack:
        place = Place(stack, "redis", "redis")
        program = place.reachable(program)
        port, path = free_port(), place.folder / "redis.sock"
        stack.enter_context(
            place.serve(
                program, "--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path),
                "--save", "", "--appendonly", "no", "--dir", str(place.folder), stop=signal.SIGTERM,
            )
        )  # fmt: skip
        yield Address(port, path)
