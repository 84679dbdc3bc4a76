"""uvicorn on uvloop, which is kept: under `obsloop run --keep-uvloop`, and observed from an application's lifespan."""

import re
import socket
import sys
import urllib.request

import pytest

from tests.cli.programs import Program

pytest.importorskip("uvloop", reason="uvloop has no wheel for this interpreter")

APPLICATION = """
import asyncio, sys, time
import obsloop

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        {startup}
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    if scope["path"] == "/block":
        culprit()
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    cls = type(asyncio.get_running_loop())
    await send({{"type": "http.response.body", "body": f"{{cls.__module__}} {{cls.__mro__[1].__module__}}".encode()}})

def culprit():
    time.sleep(0.3)
"""


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def serve(tmp_path, words, startup, **variables):
    (tmp_path / "application.py").write_text(APPLICATION.format(startup=startup))
    return Program(
        *words, "-m", "uvicorn", "application:app", "--port", "0", "--loop", "uvloop", cwd=tmp_path, **variables
    )


def look(program, service):
    """A request, a block, and what the service says of it."""
    application = program.line(r"Uvicorn running on (http://\S+)")[1]
    assert get(f"{application}/") == "obsloop.loop.kept_uvloop uvloop"
    get(f"{application}/block")
    metrics = get(f"{service}/metrics")
    assert re.search(r"eventloop_block_time\w*\{.*application\.culprit", metrics)
    assert "asyncio_eventloop_iterations" in metrics
    assert "asyncio_eventloop_schedule_delay" not in re.sub("(?m)^#.*", "", metrics)
    assert "uvloop" in get(f"{service}/")
    for path in ("slow", "tasks", "healthz"):
        get(f"{service}/{path}")


def test_under_obsloop_run(tmp_path):
    """uvicorn's loop is uvloop's, and observed."""
    with serve(tmp_path, ["--keep-uvloop", "--address", "127.0.0.1:0"], "pass") as program:
        look(program, program.url())


def test_instrument_in_a_lifespan(tmp_path):
    """The application starts, and its loop is observed from then on."""
    startup = "obsloop.instrument()"
    with serve(tmp_path, ["--keep-uvloop", "--address", "127.0.0.1:0"], startup) as program:
        look(program, program.url())


@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_instrument_in_the_lifespan_of_plain_uvicorn(tmp_path, core):
    """Without `obsloop run`: uvicorn takes uvloop since that is installed, and the application observes its loop."""
    (tmp_path / "application.py").write_text(APPLICATION.format(startup="obsloop.instrument()"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "uvicorn", "application:app", "--port", "0"]
    pure = {"OBSLOOP_PURE": "1"} if core == "pure" else {}
    with Program(command=command, cwd=tmp_path, OBSLOOP_ADDRESS=address, **pure) as program:
        look(program, f"http://{address}")
