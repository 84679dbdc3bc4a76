"""Serve the pictures' application: the demo's, and a route for each thing that has a panel on the dashboards.

live.py starts it as `obsloop run uvicorn program:app`. All that goes wrong here does so on purpose.
"""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))

from app import app
from fastapi.responses import StreamingResponse

import obsloop.asgi

app.add_middleware(obsloop.asgi.Middleware)
# Once: it reads all certificates of the system, which blocks the loop.
app.state.trusting = ssl.create_default_context()
app.state.trusting.check_hostname, app.state.trusting.verify_mode = False, ssl.CERT_NONE

_background: set[asyncio.Task[Any]] = set()


def in_background(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Create a task, and keep it until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


@app.get("/report")
async def report(seconds: float = 0.2) -> dict[str, str]:
    """Give a job to one of four workers: if more come than they can do, a queue grows."""
    loop = asyncio.get_running_loop()
    if not hasattr(app.state, "workers"):
        app.state.workers = ThreadPoolExecutor(4, thread_name_prefix="reports")
    await loop.run_in_executor(app.state.workers, time.sleep, seconds)
    return {"did": "a report"}


async def encrypt_upload(seconds: float) -> None:
    """Compute on the loop for long: the cause is cpu."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


@app.get("/encrypt")
async def encrypt(seconds: float = 0.3) -> dict[str, str]:
    """Answer at once, and do the work in a task of its own."""
    in_background(encrypt_upload(seconds))
    return {"did": "will be encrypted"}


def write_audit_log(seconds: float) -> None:
    """Wait for a disk, in a plain callback."""
    time.sleep(seconds)


@app.get("/note")
async def note(seconds: float = 0.12) -> dict[str, str]:
    """Leave a slow callback behind."""
    asyncio.get_running_loop().call_soon(write_audit_log, seconds)
    return {"did": "will be noted"}


@app.get("/native")
async def native(size: int = 8_000_000) -> dict[str, str]:
    """Let a worker thread hold the interpreter's lock for long."""
    await asyncio.to_thread(sum, range(size))
    return {"did": "held the lock"}


@app.get("/many")
async def many(callbacks: int = 40, seconds: float = 0.005) -> dict[str, str]:
    """Run many short callbacks in one iteration, which block like one long one."""
    for _ in range(callbacks):
        asyncio.get_running_loop().call_soon(time.sleep, seconds)
    return {"did": "queued"}


@app.get("/fail")
async def fail() -> dict[str, str]:
    """Raise an error in a callback and one in a task that no code awaits, and cancel a task."""
    loop = asyncio.get_running_loop()
    loop.call_soon(int, "nonsense")

    async def broken() -> None:
        raise LookupError("as an example")

    in_background(broken())
    loop.call_later(0.05, in_background(asyncio.sleep(10)).cancel)
    return {"did": "failed"}


@app.get("/reach")
async def reach(port: int, tls_port: int) -> dict[str, str]:
    """Connect by name, and with TLS; fail at a closed port, at a port without TLS, and by an unknown port name."""
    loop = asyncio.get_running_loop()
    trusting = app.state.trusting
    for arguments in (
        {"host": "localhost", "port": port},
        {"host": "localhost", "port": tls_port, "ssl": trusting},
        {"host": "127.0.0.1", "port": 1},
        {"host": "127.0.0.1", "port": port, "ssl": trusting},
        {"host": "127.0.0.1", "port": "nonsense"},
    ):
        with contextlib.suppress(OSError):
            transport, _ = await loop.create_connection(asyncio.Protocol, **arguments)
            transport.close()
    return {"did": "connected"}


@app.get("/child")
async def child() -> dict[str, str]:
    """Run a subprocess, and send this process a signal."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, int)
    os.kill(os.getpid(), signal.SIGUSR1)
    process = await asyncio.create_subprocess_exec("sleep", "0.2")
    return {"did": f"ended with {await process.wait()}"}


@app.get("/download")
async def download(chunks: int = 64, size: int = 262_144) -> StreamingResponse:
    """Send much data, for clients that read slowly."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            yield b"x" * size

    return StreamingResponse(parts())


@app.get("/refuse")
async def refuse() -> dict[str, str]:
    """Run a server whose accept fails, because its socket is shut down."""
    port = getattr(app.state, "refusing", 0)  # the same each time, as for a real server
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", port)
    app.state.refusing = server.sockets[0].getsockname()[1]
    server.sockets[0].shutdown(socket.SHUT_RDWR)
    await asyncio.sleep(0.01)
    server.close()
    return {"did": "refused"}
