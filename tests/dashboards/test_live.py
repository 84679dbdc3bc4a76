"""A loop that is really blocked, a real Prometheus with the committed rules, a real Alertmanager, and its webhook.

The program is in a process of its own: it blocks its loop when it is told to, for a known time. Every query of every
panel is asked of that Prometheus too, and of the demo's figures under load.
"""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.parts import needed

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "dashboards" / "generated"
LIMIT = 60.0
BLOCK = 6.0

PROGRAM = f"""
import asyncio, sys, threading, time
import obsloop
from tests.exporters.programs import everything

class Broken(obsloop.Instrument):
    def on_slow_callback(self, event):
        raise RuntimeError

async def fails():
    raise ValueError

async def main():
    loop = asyncio.get_running_loop()
    loop.add_instrument(Broken())
    loop.create_task(fails())  # an exception that is never retrieved
    while True:
        await everything(lambda: None)()
        for host, port in (("127.0.0.1", 1), ("no port of that name", "nonsense")):
            try:
                await loop.create_connection(asyncio.Protocol, host, port)
            except OSError:
                pass  # refused, and not found
        if (flag := sys.argv[2]) and __import__("os").path.exists(flag):
            __import__("os").remove(flag)
            time.sleep({BLOCK})
        await asyncio.sleep(0.2)

obsloop.run(main(), settings=obsloop.Settings(name="main", address="127.0.0.1:" + sys.argv[1]))
"""

DEMO_LOAD = ("/wait?seconds=0.01", "/compute", "/block?seconds=0.15")

pytestmark = [pytest.mark.clients, pytest.mark.once]


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what: str, limit: float = LIMIT):
    """The first true answer of `condition`."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {limit:.0f} s: {what}")


class Stack:
    """What runs, and where."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.flag, self.processes = folder, folder / "block", []
        self.heard: list[dict] = []
        self.at = {name: port() for name in ("program", "demo", "web", "prometheus", "alertmanager")}
        heard = self.heard

        class Webhook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
        threading.Thread(target=self.webhook.serve_forever, daemon=True).start()

    def start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.webhook.shutdown()
        self.webhook.server_close()

    def query(self, text: str) -> list[dict]:
        """What Prometheus answers; an error in the query is an error here."""
        url = f"http://127.0.0.1:{self.at['prometheus']}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return [series for series in found if series["value"][1] != "NaN"]  # a quantile of nothing draws nothing


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The program, scraped every quarter of a second, rules evaluated as often; Alertmanager; a webhook."""
    folder = tmp_path_factory.mktemp("stack")
    running = Stack(folder)
    at = running.at
    for name in ("rules.yaml", "alerts.yaml"):
        # As committed, but for how often they are looked at: a test does not wait for minutes.
        text = (GENERATED / name).read_text().replace('interval: "30s"', 'interval: "500ms"')
        (folder / name).write_text(text.replace('interval: "1m"', 'interval: "500ms"'))
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n"
        f"rule_files: [{folder}/rules.yaml, {folder}/alerts.yaml]\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{at['alertmanager']}']}}]}}]}}\n"
        f"scrape_configs: [{{job_name: live, static_configs: [{{targets: ['127.0.0.1:{at['program']}']}}]}},\n"
        f"  {{job_name: demo, static_configs: [{{targets: ['127.0.0.1:{at['demo']}']}}]}}]\n"
    )
    (folder / "alertmanager.yml").write_text(
        "route: {receiver: here, group_wait: 100ms, group_interval: 500ms, group_by: ['...']}\n"
        "receivers: [{name: here, webhook_configs: "
        f"[{{url: 'http://127.0.0.1:{running.webhook.server_port}/', send_resolved: true}}]}}]\n"
    )
    parts = {"prometheus": "prometheus", "prometheus-alertmanager": "alertmanager"}
    commands = {program: needed(program, part) for program, part in parts.items()}
    try:
        running.start("program", [sys.executable, "-c", PROGRAM, str(at["program"]), str(running.flag)])
        running.start("demo", [
            sys.executable, "-m", "obsloop", "run", "--address", f"127.0.0.1:{at['demo']}",
            "-m", "uvicorn", "--app-dir", "demo", "app:app", "--port", str(at["web"]), "--log-level", "warning",
        ])  # fmt: skip
        running.start("alertmanager", [
            commands["prometheus-alertmanager"], f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/am", f"--web.listen-address=127.0.0.1:{at['alertmanager']}",
            "--cluster.listen-address=",
        ])  # fmt: skip
        running.start("prometheus", [
            commands["prometheus"], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{at['prometheus']}", "--enable-feature=exemplar-storage",
        ])  # fmt: skip
        until(lambda: running.query("asyncio_eventloop_blocked_time_seconds"), "the first scrape")
        yield running
    finally:
        running.stop()


def test_a_blocked_loop_alerts_and_recovery_resolves_it(stack):
    """The webhook hears of the block while it lasts, with its texts filled in, and of its end."""
    stack.flag.touch()
    name = "AsyncioLoopBlocked"

    def said(status: str) -> dict | None:
        mine = [alert for alert in stack.heard if alert["labels"]["alertname"] == name and alert["status"] == status]
        return mine[0] if mine else None

    fired = until(lambda: said("firing"), f"{name} fires")
    assert fired["labels"]["asyncio_eventloop_name"] == "main"
    assert fired["labels"]["severity"] == "critical"
    annotations = fired["annotations"]
    at = f"127.0.0.1:{stack.at['program']} (live)"
    assert annotations["summary"].startswith("The loop main of ")
    assert f"{at} is blocked now" in annotations["summary"]
    assert annotations["runbook_url"].endswith("/dashboards/runbook.md#asyncioloopblocked")
    assert "{{" not in annotations["description"]
    until(lambda: said("resolved"), f"{name} is resolved")


def expressions(job: str) -> dict[str, tuple[str, bool]]:
    """Each panel's queries, for that job, and whether the panel says that something must have happened first."""
    found = {}
    for path in sorted(GENERATED.glob("obsloop-*.json")):
        panels = [one for row in json.loads(path.read_text())["panels"] for one in (row, *row.get("panels", ()))]
        for panel in panels:
            for target in panel.get("targets", ()):
                text = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "1m")
                text = text.replace("$job", job).replace("$instance", ".*").replace("$loop", ".*")
                waits = "Empty until " in panel["description"]
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = text, waits
    return found


def answered(stack, queries: dict[str, str], meanwhile=lambda: None) -> None:
    """Until each has data."""
    left = dict(queries)

    def every_one() -> bool:
        meanwhile()
        for name in [name for name, query in left.items() if stack.query(query)]:
            del left[name]
        return not left

    try:
        until(every_one, "data")
    except AssertionError:
        pytest.fail(f"{len(left)} of {len(queries)} queries are without data: {left}")


def test_no_panel_and_no_recording_rule_is_dead(stack):
    """Every query, with all that the variables allow, has data once the program has done everything."""
    queries = {name: query for name, (query, _) in expressions(".*").items()}
    for line in (GENERATED / "rules.yaml").read_text().splitlines():
        if "record: " in line:
            queries[line.strip()] = json.loads(line.partition("record: ")[2])
    answered(stack, queries)
    assert len(queries) > 70


def test_the_demo_under_load_fills_all_that_needs_no_condition(stack):
    """What is empty on a plain web application says so, and what must happen first; nothing else may be empty."""

    def load() -> None:
        for path in DEMO_LOAD:
            urllib.request.urlopen(f"http://127.0.0.1:{stack.at['web']}{path}", timeout=10).close()

    queries = expressions("demo")
    answered(stack, {name: query for name, (query, waits) in queries.items() if not waits}, load)
    empty = [name for name, (query, waits) in queries.items() if waits and not stack.query(query)]
    assert empty, "conditions that nobody needs"
