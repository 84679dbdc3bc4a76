"""prometheus_client's multiprocess mode with four real workers: obsloop's metrics beside the program's own."""

import re
import time

import pytest

from tests.blocking.support import until
from tests.cli.programs import SECONDS, Program, get

APP = """
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess
from obsloop_exporters.prometheus import Collector

REQUESTS = Counter("shop_requests", "Requests of the program.")
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
registry.register(Collector())

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b"done"
    if scope["path"] == "/metrics":
        body = generate_latest(registry)
    else:
        REQUESTS.inc()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
"""
REQUESTS = 40

pytestmark = [pytest.mark.clients, pytest.mark.once]


def total(page: str, name: str) -> float:
    """The sum of a metric's series."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(rf"{name}[ {{]", line))


def listens(web: str) -> bool:
    """Whether a worker answers by now."""
    try:
        return get(f"{web}/metrics")[0] == 200
    except OSError:
        return False


def test_one_scrape_of_the_programs_registry_has_all_workers(tmp_path):
    """The program's counter and obsloop's agree, whichever worker answers, and each worker is there."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "values").mkdir()
    words = ("--address", "127.0.0.1:0", "-m", "uvicorn", "app:app", "--port", "0", "--workers", "4")
    with Program(*words, cwd=tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "values")) as program:
        web = program.line("Uvicorn running on (http://[^ ]+)")[1]
        until(lambda: listens(web), SECONDS)
        pages = 1

        def scraped() -> str:
            nonlocal pages
            pages += 1
            return get(f"{web}/metrics")[1]

        end = time.monotonic() + SECONDS
        while (found := set(re.findall(r'worker="(\d+)"', page := scraped()))) != {"0", "1", "2", "3"}:
            assert time.monotonic() < end, f"only the workers {found} after {SECONDS} s"
            time.sleep(0.1)
        for _ in range(REQUESTS):
            assert get(f"{web}/")[1] == "done"
        for _ in range(8):
            page = scraped()
            assert total(page, "shop_requests_total") == REQUESTS
            assert total(page, "asyncio_server_accepted_total") == REQUESTS + pages
        assert page.count("# TYPE asyncio_eventloop_iterations_total ") == 1
