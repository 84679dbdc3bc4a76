"""Fixtures of these tests: a loop of ours under a name, certificates, listeners that answer nobody."""

import asyncio
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

import obsloop
from tests.support import LIMIT, forget_everything


@pytest.fixture
def loop() -> Iterator[obsloop.Loop]:
    """A loop called main, and no figures from before."""
    forget_everything()
    made = obsloop.Loop(settings=obsloop.Settings(name="main"))
    yield made
    made.run_until_complete(asyncio.wait_for(made.shutdown_default_executor(), LIMIT))
    made.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody outside this test run trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority) -> ssl.SSLContext:
    """What a server needs to prove that it is localhost or 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority) -> ssl.SSLContext:
    """What a client needs to believe that server, and only that one."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A listener whose queue is full: who connects to it gets no answer, until somebody accepts."""
    with socket.socket() as listening, socket.socket() as first:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        first.connect(listening.getsockname())
        with socket.socket() as probe:
            probe.settimeout(0.1)
            with pytest.raises(TimeoutError):
                probe.connect(listening.getsockname())
        yield listening


@pytest.fixture
def nobody() -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()
