"""README.md and the guide (docs/) as a user takes them: every code block is run, and every name in them exists.

A block of a language that is not known here, or a command that no test runs, is a failure: nothing is promised that
nobody has tried.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import obsloop
from obsloop_exporters.prometheus import Exporter
from tests.exporters.otlp import HttpReceiver, receiving
from tests.exporters.traces import spans_of, until

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = "\n".join(PAGES.values())
SECONDS = 60  # for a start on a busy machine; nothing is asserted about it

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FILES = [text for language, text in BLOCKS if language in ("python", "ini") and re.match(r"# (\w+\.\w+)\n", text)]
AIOHTTP = next(text for text in FILES if text.startswith("# aio.py\n"))  # it serves until it is stopped
PYTHON = [text for language, text in BLOCKS if language == "python" and text != AIOHTTP]
COMMANDS = list(
    dict.fromkeys(  # the recipes repeat some
        line.split("#")[0].strip()
        for language, text in BLOCKS
        if language == "sh"
        for line in text.splitlines()
        if line
    )
)
SERVERS = [command for command in COMMANDS if "uvicorn" in command and "opentelemetry" not in command]
(GUNICORN,) = (command for command in SERVERS if "gunicorn" in command)
(AIO,) = (command for command in COMMANDS if command.endswith("python aio.py"))
(LOGGED,) = (command for command in SERVERS if "logging.ini" in command)
URLS = [command.removeprefix("curl ") for command in COMMANDS if command.startswith("curl ")]
# The rest: what this test run itself, or test_demo.py, has done already; and what has a test of its own below.
TRACED, INSTRUMENTED = (command for command in COMMANDS if "opentelemetry-instrument" in command)
# tests/top has the screen of `obsloop top`.
DONE = {
    "make demo", 'pip install ".[prometheus]"', "pytest test_report.py", TRACED, INSTRUMENTED, AIO, "obsloop top",
    'pip install "obsloop[top]"',
}  # fmt: skip
# These tests need packages that only the machine's own interpreter has.
NEEDS_CLIENTS = {GUNICORN: [pytest.mark.clients]}


def name_of(program):
    """What the block says that its file is called."""
    match = re.match(r"# (\w+\.\w+)\n", program)
    return match[1] if match else "program.py"


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with the files that README shows by name."""
    for program in FILES:
        (tmp_path / name_of(program)).write_text(program)
    return tmp_path


def environ(**variables):
    """A user's environment: ours activated, none of our variables set, but the one that chooses the core."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OBSLOOP_", "UVICORN_")) or key == "OBSLOOP_PURE"
    }
    return kept | {"PATH": path} | variables


def free_port():
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    """Status and text of what `curl URL` would print."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def run(folder, *arguments, **variables):
    """What comes of `python ARGUMENTS` in the user's folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextlib.contextmanager
def served(command, folder, **variables):
    """The URL of an application that a command of README serves, and the port of its metrics."""
    app, metrics = free_port(), free_port()
    # The ports that README names are the defaults, and may be taken here: the same places, other numbers.
    variables |= {"UVICORN_PORT": str(app), "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{app}"}
    if command.startswith("obsloop run"):
        variables["OBSLOOP_ADDRESS"] = f"127.0.0.1:{metrics}"
    with subprocess.Popen(
        ["bash", "-c", f"exec env {command.replace('9464', str(metrics))}"],
        cwd=folder,
        env=environ(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = ""
            for line in process.stderr:
                said += line
                if "Uvicorn running" in line or ("gunicorn" in command and "startup complete" in line):
                    break
            else:
                pytest.fail(f"{command} ended:\n{said}")
            yield f"http://127.0.0.1:{app}", metrics
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("program", PYTHON, ids=lambda text: text.splitlines()[0])
def test_programs(program, folder):
    """Every Python block is a whole program, which ends well and complains about nothing."""
    if "loop_factory" in program and sys.version_info < (3, 12):
        line = re.compile(r"^asyncio\.run\(.*loop_factory.*# Python 3\.12 and newer\n", re.MULTILINE)
        assert line.search(program), "README must say that asyncio.run takes loop_factory from 3.12 on"
        program = line.sub("", program)
    (folder / "program.py").write_text(program)
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(folder)} if "multiprocess" in program else {}
    result = run(folder, "-W", "error::DeprecationWarning:__main__", "program.py", **variables)
    assert (result.returncode, result.stderr) == (0, "")
    if "print(" in program:
        assert re.search(r"\d", result.stdout), "it was to print numbers"


@pytest.mark.parametrize(
    "command", [pytest.param(command, marks=NEEDS_CLIENTS.get(command, [])) for command in SERVERS]
)
def test_servers_are_served_while_they_are_blocked(command, folder):
    """Each command that starts a server: its metrics answer by the curl lines, also while /bad blocks for 3 s."""
    with served(command, folder) as (app, metrics):
        answers = {url: get(url.replace("9464", str(metrics))) for url in URLS}
        assert [status for status, _ in answers.values()] == [200] * len(URLS)
        assert get(f"{app}/good")[0] == 200
        with subprocess.Popen(
            [sys.executable, "-c", f"import urllib.request; urllib.request.urlopen('{app}/bad')"], env=environ()
        ) as blocker:
            blocked, status = 0.0, 200
            while blocker.poll() is None and (blocked < 1.5 or status != 503):
                status, _ = get(f"http://127.0.0.1:{metrics}/healthz")
                blocked = max(blocked, blocked_time(get(f"http://127.0.0.1:{metrics}/metrics")[1]))
                time.sleep(0.05)
        assert blocked >= 1.5, "the gauge did not show the block while it lasted"
        assert status == 503, "/healthz did not show the block while it lasted"


def test_top_finds_the_server(folder):
    """It asks for no address, while the server of the first line runs."""
    with served(SERVERS[0], folder) as (_, metrics):
        end = time.monotonic() + SECONDS
        while (shown := run_top()).returncode and time.monotonic() < end:
            time.sleep(0.1)  # the server says that it runs, and joins its group at the same time
        process = json.loads(get(f"http://127.0.0.1:{metrics}/?format=json")[1])["process"]
    assert (shown.returncode, shown.stderr) == (0, "")
    assert str(process) in shown.stdout


def run_top():
    """`obsloop top`, for a script."""
    return subprocess.run(["obsloop", "top", "--once"], env=environ(), capture_output=True, text=True, check=False)


def blocked_time(text):
    """The gauge that shows a block."""
    match = re.search(r"^asyncio_eventloop_blocked_time_seconds\{.*\} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def line_of(program, text):
    """The number of the line that has this text."""
    return next(number for number, line in enumerate(program.splitlines(), 1) if text in line)


def test_plain_logging_shows_the_line_that_blocked(folder):
    """In the form that the guide shows."""
    (program,) = (text for text in FILES if name_of(text) == "log_plain.py")
    result = run(folder, "log_plain.py")
    line = line_of(program, "time.sleep")
    pattern = rf"^\S+ \S+ WARNING obsloop: event loop blocked [\d.]+ s by __main__\.export \(log_plain\.py:{line}\), "
    assert re.search(pattern, result.stdout), result.stdout
    assert f"(log_plain.py:{line})" in program.splitlines()[-1]


def test_json_logging_has_the_parts_as_fields(folder):
    """Each field that the guide names, but for the route: nothing here is a web request."""
    (program,) = (text for text in FILES if name_of(text) == "log_json.py")
    result = run(folder, "log_json.py")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    (record,) = (record for record in records if "event loop blocked" in record["message"])
    assert record["code.line.number"] == line_of(program, "time.sleep")
    assert record["asyncio.eventloop.block.duration"] >= 0.6
    shown = re.search(r"^The fields are (.*?)\. A field", README, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"`([\w.]+)`", shown)) - {"http.route"} == set(record) - {"level", "message"}


def test_uvicorn_formats_the_line_by_its_configuration(folder):
    """A root logger in uvicorn's configuration gets obsloop's line: the one at the head of README."""
    log = folder / "log"
    with served(f"{LOGGED} 2> >(tee {log} >&2)", folder) as (app, _):
        assert get(f"{app}/bad")[0] == 200
        shown = re.search(r"^event loop blocked 3\.00 s by (app\.bad \(app\.py:\d+\), syscall)", README, re.MULTILINE)[
            1
        ]
        line = rf"WARNING obsloop: event loop blocked \d+\.\d+ s by {re.escape(shown)}"
        until(lambda: re.search(line, log.read_text()), "the line is logged")


@pytest.mark.clients
def test_an_aiohttp_application_is_observed(folder):
    """The recipe's application answers, and the service has its loop."""
    app, metrics = free_port(), free_port()
    (folder / "aio.py").write_text(AIOHTTP.replace("8080", str(app)))
    command = f"exec env {AIO.replace('9464', str(metrics))}"
    with subprocess.Popen(["bash", "-c", command], cwd=folder, env=environ(), stdin=subprocess.DEVNULL) as process:
        try:
            assert until(lambda: answers(f"http://127.0.0.1:{app}/good"), "aiohttp answers") == "good\n"
            assert "asyncio_eventloop_time_seconds_total" in get(f"http://127.0.0.1:{metrics}/metrics")[1]
        finally:
            process.kill()


def answers(url):
    """What the URL answers; None if nothing listens there yet."""
    try:
        return get(url)[1]
    except urllib.error.URLError:
        return None


def test_pytest_fails_the_test_that_blocks_its_loop_and_says_where(folder):
    """The message is the one that README shows, but for the last digits of the duration."""
    result = run(folder, "-m", "pytest", "-p", "no:cacheprovider", "test_report.py")
    assert result.returncode == 1, result.stderr
    (shown,) = re.findall(r"^obsloop: the loop was blocked.*$", README, re.MULTILINE)
    pattern = re.escape(shown).replace(r"0\.300", r"0\.3\d\d")
    assert re.search(pattern, result.stdout), result.stdout


def test_opentelemetry_instrument_exports_the_metrics(folder):
    """To a receiver that is somewhere else than the default, which may be taken here."""
    with receiving(HttpReceiver) as receiver:
        done = subprocess.run(
            ["bash", "-c", INSTRUMENTED],
            cwd=folder,
            env=environ(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.port}"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "asyncio.eventloop.schedule.delay" in receiver.last


def test_a_server_under_opentelemetry_instrument_sends_spans(folder):
    """A request that blocks for 3 s: the callback's span arrives, with the stack that the watchdog saw."""
    with receiving(HttpReceiver) as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with served(TRACED, folder, **variables) as (app, _):
            assert get(f"{app}/bad")[0] == 200

            def slow():
                spans = spans_of(receiver)  # on a busy machine, importing the application is slow, too
                return [span for span in spans if span.name.startswith("asyncio callback") and span.seconds >= 3]

            span = max(until(slow, "a span arrives"), key=lambda span: span.seconds)
        assert 3 <= span.seconds < SECONDS
        assert any("in bad" in attributes["code.stacktrace"] for _, _, attributes in span.events)


def test_nothing_is_left_untried():
    """Each block is of a language that is run here or shows something, and each command is one that is run."""
    assert {language for language, _ in BLOCKS} <= {"python", "sh", "text", "promql", "ini"}
    assert PYTHON
    assert SERVERS
    assert URLS
    assert set(COMMANDS) - set(SERVERS) - {f"curl {url}" for url in URLS} == DONE


def test_make_targets_exist():
    """The first commands are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", "\n".join([*COMMANDS, *re.findall(r"`(make [^`]+)`", README)])):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_metric_named_is_exported():
    """Texts and queries use the names that /metrics uses. All of them are on the page of metrics."""
    _, body = Exporter().render(None)
    exported = set()
    for family in text_string_to_metric_families(body.decode()):
        exported.add(f"{family.name}_total" if family.type == "counter" else family.name)
    mentioned = set(re.findall(r"\b(?:asyncio|cpython_gc|dns|obsloop)_\w+", README))
    named = {name.removesuffix("_bucket") for name in mentioned} - {"asyncio_eventloop_name", "obsloop_exporters"}
    assert named
    assert named <= exported


def test_the_settings_table_is_whole():
    """Every setting, its variable and its default, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| `(OBSLOOP_\w+)` \| (.*?) \|", README, re.MULTILINE)
    every = [*dataclasses.fields(obsloop.Settings), *dataclasses.fields(obsloop.SpanSettings)]
    fields = {field.name: field.default for field in every}
    assert [(name, variable) for name, variable, _ in rows] == [(name, f"OBSLOOP_{name.upper()}") for name in fields]
    for name, _, default in rows:
        if fields[name] is not None:
            assert default == f"`{oct(fields[name]) if name == 'socket_mode' else fields[name]}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Links to files of the project, and to headings of theirs or of this page."""
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if not link.startswith("http"):
            path, _, heading = link.partition("#")
            target = page if not path else page.parent / path
            assert target.exists(), link
            assert not heading or heading in headings(target.read_text()), link


def headings(text):
    """As GitHub names them."""
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}
