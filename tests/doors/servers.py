"""The table of servers: the line that starts each, how many processes it makes, and how it begins anew."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def touch(process, folder: Path) -> None:
    """Change the application's file, which a server with `--reload` watches."""
    (folder / "shop.py").write_text((folder / "shop.py").read_text() + "# changed\n")


def hang_up(process, folder: Path) -> None:
    """Send SIGHUP: the server replaces its workers."""
    process.send_signal(signal.SIGHUP)


@dataclass(frozen=True)
class Server:
    """One way to start a server. In the command, PORT and FOLDER stand for those that the test chooses."""

    command: str
    workers: int
    reload: Callable[..., None] | None = None
    """How its users let it load the program again; None if it has no way."""
    replaces: bool = True
    """Whether it starts a new worker for one that was killed. Hypercorn ends then; Sanic goes on with the others."""
    speaks: str = "http"
    """How its clients ask: http, grpc, celery or taskiq."""
    takes_uvloop: bool = False
    """Whether it would take uvloop, which is installed: then `obsloop run` says so in one more line."""
    only_here: str = ""
    """Words that users need not write, for a busy machine."""


UVICORN = "uvicorn shop:app --port PORT"
UVICORN_WORKER = "gunicorn shop:app -k uvicorn_worker.UvicornWorker -b 127.0.0.1:PORT"
GUNICORN_ASGI = "gunicorn shop:app -k asgi -b 127.0.0.1:PORT"
GUNICORN_AIOHTTP = "gunicorn aio:app -k aiohttp.GunicornWebWorker -b 127.0.0.1:PORT"
HYPERCORN = "hypercorn shop:app -b 127.0.0.1:PORT"
GRANIAN = "granian --interface asgi shop:app --port PORT"
SANIC = "sanic sanic_shop:app --port PORT"
TORNADO = "python tornado_shop.py PORT"
CELERY = "celery -A celery_shop worker --pool prefork"
TASKIQ = "taskiq worker taskiq_shop:broker"

SERVERS = {
    "uvicorn": Server(UVICORN, 1, takes_uvloop=True),
    "uvicorn-3": Server(
        f"{UVICORN} --workers 3", 3, hang_up, takes_uvloop=True, only_here="--timeout-worker-healthcheck 60"
    ),
    "uvicorn-reload": Server(f"{UVICORN} --reload", 1, touch, replaces=False, takes_uvloop=True),
    "gunicorn-uvicorn": Server(UVICORN_WORKER, 1, hang_up, takes_uvloop=True),
    "gunicorn-uvicorn-3": Server(f"{UVICORN_WORKER} -w 3", 3, hang_up, takes_uvloop=True),
    "gunicorn-asgi-3": Server(f"{GUNICORN_ASGI} -w 3", 3, hang_up, takes_uvloop=True),
    "gunicorn-aiohttp-3": Server(f"{GUNICORN_AIOHTTP} -w 3", 3, hang_up),
    "hypercorn": Server(HYPERCORN, 1),
    "hypercorn-3": Server(f"{HYPERCORN} -w 3", 3, replaces=False),
    "granian": Server(GRANIAN, 1, hang_up, takes_uvloop=True),
    "granian-3": Server(f"{GRANIAN} --workers 3 --respawn-failed-workers", 3, hang_up, takes_uvloop=True),
    "daphne": Server("daphne -p PORT shop:app", 1, replaces=False),
    "sanic": Server(f"{SANIC}", 1, takes_uvloop=True),
    "sanic-3": Server(f"{SANIC} --workers 3", 3, replaces=False, takes_uvloop=True),
    "aiohttp": Server("python aio.py PORT", 1, replaces=False),
    "tornado": Server(f"{TORNADO} 1", 1, replaces=False),
    "tornado-3": Server(f"{TORNADO} 3", 3),
    "grpc": Server("python grpc_shop.py PORT", 1, replaces=False, speaks="grpc"),
    "celery-3": Server(f"{CELERY} --concurrency 3", 3, speaks="celery"),
    "taskiq-3": Server(f"{TASKIQ} --workers 3", 3, hang_up, speaks="taskiq", takes_uvloop=True),
}
LIMITED = {
    "uvicorn-limited": Server(
        f"{UVICORN} --workers 2 --limit-max-requests 25",
        2,
        takes_uvloop=True,
        only_here="--timeout-worker-healthcheck 60",
    ),
    "gunicorn-uvicorn-limited": Server(f"{UVICORN_WORKER} -w 2 --max-requests 25", 2, takes_uvloop=True),
    "gunicorn-asgi-limited": Server(f"{GUNICORN_ASGI} -w 2 --max-requests 25", 2, takes_uvloop=True),
}
"""Servers whose workers end after some requests, and are replaced."""
