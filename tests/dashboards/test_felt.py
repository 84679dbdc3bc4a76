"""What users feel makes an alert fire: real services under load, a real Prometheus with the committed rules.

One service has a loop that two routes block for 15 % of the time, beside trivial requests. The other is busy for 90 %
of the time, in short callbacks, and healthy. The rules' times are shortened, all by the same factor.
"""

import json
import re
import sys
import threading
import urllib.request

import pytest

from tests.dashboards.test_live import GENERATED, Stack, until
from tests.parts import needed

SHORTER = 30
"""An hour is two minutes."""
WINDOW = re.compile(r"(?<=\[)(\d+)([mh])(?=\])|(?<=for: \")(\d+)([mh])(?=\")")
BLOCKS = {"/report": 0.3, "/invoice": 0.22}
"""Seconds for which each route blocks the loop."""
PERIOD = 3.4
"""Seconds in which each of them is requested once: 0.52 s of 3.4 s are blocked."""
ALERTS = ("AsyncioLagHigh", "AsyncioTimeBlocked")

SHOP = f"""
import time
from fastapi import FastAPI

app = FastAPI()

@app.get("/report")
async def report():
    time.sleep({BLOCKS["/report"]})

@app.get("/invoice")
async def invoice():
    time.sleep({BLOCKS["/invoice"]})

@app.get("/")
async def trivial():
    return "done"
"""

BUSY = """
import asyncio, sys, time
import obsloop

async def main():
    begun, busy = time.perf_counter(), 0.0
    while True:
        start = time.perf_counter()
        while time.perf_counter() < start + 0.0045:
            pass
        busy += time.perf_counter() - start
        share = busy / (time.perf_counter() - begun)
        await asyncio.sleep(0.0005 if share > 0.9 else 0)

obsloop.run(main(), settings=obsloop.Settings(name="main", address="127.0.0.1:" + sys.argv[1]))
"""

pytestmark = [pytest.mark.clients, pytest.mark.once]


def shortened(text: str) -> str:
    """The rules with all their windows and holds shortened, and looked at as often as the program is scraped."""

    def shorter(found: re.Match[str]) -> str:
        number, unit = found[1] or found[3], found[2] or found[4]
        return f"{int(number) * {'m': 60, 'h': 3600}[unit] // SHORTER}s"

    return re.sub(r'interval: "\w+"', 'interval: "500ms"', WINDOW.sub(shorter, text))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Both services, and Prometheus."""
    folder = tmp_path_factory.mktemp("felt")
    (folder / "shop.py").write_text(SHOP)
    running = Stack(folder)
    at = running.at
    for name in ("rules.yaml", "alerts.yaml"):
        (folder / name).write_text(shortened((GENERATED / name).read_text()))
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: [{folder}/rules.yaml, {folder}/alerts.yaml]\n"
        f"scrape_configs: [{{job_name: shop, static_configs: [{{targets: ['127.0.0.1:{at['demo']}']}}]}},\n"
        f"  {{job_name: busy, static_configs: [{{targets: ['127.0.0.1:{at['program']}']}}]}}]\n"
    )
    prometheus = needed("prometheus", "prometheus")
    try:
        running.start("busy", [sys.executable, "-c", BUSY, str(at["program"])])
        running.start("shop", [
            sys.executable, "-m", "obsloop", "run", "--address", f"127.0.0.1:{at['demo']}",
            "-m", "uvicorn", "--app-dir", str(folder), "shop:app", "--port", str(at["web"]), "--log-level", "warning",
        ])  # fmt: skip
        running.start("prometheus", [
            prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{at['prometheus']}",
        ])  # fmt: skip
        for job in ("shop", "busy"):
            until(lambda job=job: running.query(f'asyncio_eventloop_lag_seconds_count{{job="{job}"}}'), f"{job}'s lag")
        yield running
    finally:
        running.stop()


@pytest.fixture
def load(stack):
    """Requests, as users send them: at their own pace, whatever happened to the ones before."""
    over = threading.Event()

    def ask(path: str, every: float) -> None:
        while not over.wait(every):
            urllib.request.urlopen(f"http://127.0.0.1:{stack.at['web']}{path}", timeout=30).close()

    threads = [threading.Thread(target=ask, args=(path, PERIOD - seconds)) for path, seconds in BLOCKS.items()]
    threads.append(threading.Thread(target=ask, args=("/", 0.02)))
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def alerts(stack) -> dict[tuple[str, str], dict]:
    """The alerts that fire, by job and name."""
    url = f"http://127.0.0.1:{stack.at['prometheus']}/api/v1/alerts"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]["alerts"]
    return {(one["labels"]["job"], one["labels"]["alertname"]): one for one in found if one["state"] == "firing"}


def test_a_loop_that_is_blocked_now_and_then_alerts_and_a_busy_one_does_not(stack, load):
    """Its lag and its time blocked; the alerts' texts name the routes that block it."""
    until(lambda: all(("shop", name) in alerts(stack) for name in ALERTS), f"{' and '.join(ALERTS)} fire", limit=180)
    fired = alerts(stack)
    for name in ALERTS:
        said = fired["shop", name]["annotations"]["description"]
        assert "shop.report blocked it for " in said
        assert "shop.invoice blocked it for " in said
    # It is a loop that ordinary metrics call healthy, and the other one is busy for all that.
    utilization = "loop:asyncio_eventloop_utilization:ratio_rate5m"
    (busy,) = stack.query(f'{utilization}{{job="busy"}}')
    assert float(busy["value"][1]) > 0.8
    mine = {name for job, name in fired if job == "busy"}
    assert not mine & {*ALERTS, "AsyncioLagRising", "AsyncioLoopBlocked"}
