"""Fixtures of these tests only: certificates, programs that run on the loop under test, the log as lines."""

import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable

import pytest
import trustme

from .support import LIMIT


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody outside this test run trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority) -> ssl.SSLContext:
    """What a server needs to prove that it is localhost, 127.0.0.1 or obsloop.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "obsloop.test").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority) -> ssl.SSLContext:
    """What a client needs to believe that server, and only that one."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def asyncio_log(caplog) -> Callable[[], list[str]]:
    """A function that returns what the 'asyncio' logger has said so far, debug messages left out."""
    caplog.set_level(logging.INFO, logger="asyncio")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "asyncio"]


@pytest.fixture
def loop_source(loop_kind) -> str:
    """The expression by which a program gets the loop under test."""
    return {"stock": "asyncio.new_event_loop()", "obsloop": "obsloop.new_event_loop()"}[loop_kind]


@pytest.fixture
def program(loop_kind, loop_source) -> Callable[..., subprocess.Popen[str]]:
    """Start a program in an interpreter of its own; `{loop}` in its text becomes the loop under test."""

    def start(source: str, *options: str, **environ: str) -> subprocess.Popen[str]:
        # The child must find the same obsloop as we did, whether installed or a checkout; also under -E.
        head = f"import sys; sys.path[:] = {sys.path!r}\n"
        head += "import asyncio\n" if loop_kind == "stock" else "import asyncio, obsloop\n"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OBSLOOP_"))}
        text = head + source.replace("{loop}", loop_source)
        command = [sys.executable, "-W", "error", *options, "-c", text]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=env | environ, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture
def run_program(program) -> Callable[..., str]:
    """Run a program to its end; return what it printed. It must succeed and say nothing on stderr."""

    def run(source: str, *options: str, **environ: str) -> str:
        with program(source, *options, **environ) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert (process.returncode, err) == (0, "")
        return out

    return run


@pytest.fixture
def contexts(loop):
    """What the loop tells its exception handler."""
    seen = []

    def handler(the_loop, context):
        assert the_loop is loop
        assert isinstance(context, dict)
        seen.append(context)

    loop.set_exception_handler(handler)
    return seen
