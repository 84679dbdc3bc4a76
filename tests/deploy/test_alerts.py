"""deploy/alerts.py prints what a real Alertmanager sends it, as deploy's own configuration routes it."""

import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from tests.deploy.support import DEPLOY, LIMIT, eventually, free_ports, get
from tests.parts import needed

pytestmark = pytest.mark.clients


@pytest.fixture
def webhook():
    """The webhook: its port, and the lines that it printed."""
    words = [sys.executable, DEPLOY / "alerts.py", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            lines: list[str] = []
            reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
            reader.start()
            yield port, lines
        finally:
            process.kill()
    reader.join(LIMIT)


def post(url: str, data: bytes) -> int:
    """The status of the answer."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_real_alertmanager_reaches_it(webhook, tmp_path):
    """An alert that is raised at Alertmanager is printed with its name, severity and summary."""
    port, lines = webhook
    text = (DEPLOY / "compose" / "alertmanager.yml").read_text()
    assert text.count("http://alerts:9094/") == 1
    config = tmp_path / "alertmanager.yml"
    config.write_text(text.replace("http://alerts:9094/", f"http://127.0.0.1:{port}/"))
    own = free_ports(1)
    command = [needed("prometheus-alertmanager", "alertmanager"), f"--config.file={config}"]
    command += [f"--storage.path={tmp_path}", f"--web.listen-address=127.0.0.1:{own}", "--cluster.listen-address="]
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            eventually(lambda: get(f"http://127.0.0.1:{own}/-/ready"), "Alertmanager is ready")
            labels = {"alertname": "AsyncioLoopBlocked", "severity": "critical", "instance": "demo:9464"}
            alert = {"labels": labels, "annotations": {"summary": "The loop is blocked."}}
            assert post(f"http://127.0.0.1:{own}/api/v2/alerts", json.dumps([alert]).encode()) == 200
            (said,) = eventually(lambda: list(lines), "the webhook was told")
        finally:
            process.terminate()
            process.wait(LIMIT)
    assert said == "firing: AsyncioLoopBlocked severity=critical instance=demo:9464 The loop is blocked.\n"


@pytest.mark.parametrize("body", [b"nothing", b"[]", b'{"alerts": [1]}', b'{"alerts": [{"status": "firing"}]}'])
def test_what_is_no_notification_is_refused(webhook, body):
    """It answers 400, prints nothing of it, and goes on."""
    port, lines = webhook
    assert post(f"http://127.0.0.1:{port}/", body) == 400
    assert not [line for line in lines if "firing" in line]
