"""`make demo`'s own program, run for some seconds: a real FastAPI application under `obsloop run`, real requests."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "demo" / "run.py"
SECONDS = 120  # for a start and an end on a busy machine; nothing is asserted about it
# None of the variables that somebody may have set for other programs; but the core under test.
ENVIRON = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("OBSLOOP_", "UVICORN_")) or key == "OBSLOOP_PURE"
}
BOUND = r"(?:<= [\d.]+ m?s|> 10 s|-)"
ROW = re.compile(
    r"^ *[\d.]+  (?P<load>waiting|\+ computing|\+ blocking) +(?P<busy>\d+)% +(?P<idle>\d+)%"
    rf" +(?P<delay>{BOUND}) +(?P<slowest>{BOUND}) +(?P<blocked>[\d.]+ s|-)"
    r" +(?P<steps>\d+) +(?P<timers>\d+) +(?P<reads>\d+)$"
)


@contextlib.contextmanager
def demo(*options):
    """The demo in a session of its own, so that a Ctrl-C can go to all of it, as a terminal sends it."""
    process = subprocess.Popen(
        [sys.executable, DEMO, *map(str, options)],
        env=ENVIRON,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def rows(output):
    """The table's lines, as dictionaries of text."""
    return [match.groupdict() for line in output.splitlines() if (match := ROW.match(line))]


def seconds(text):
    """From "<= 2.5 ms", "0.31 s" or "-"."""
    if text == "-":
        return 0.0
    number, unit = text.split()[-2:]
    return float(number) / {"s": 1, "ms": 1000}[unit]


def assert_gone(output):
    """Neither the application nor its metrics answer any more."""
    for url in set(re.findall(r"http://[\d.:]+", output)):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)


def test_the_table_moves_with_the_load_and_the_line_that_blocks_is_named():
    """Three phases, each with one route more: the last blocks for 0.4 s at a time, and each block gets a line."""
    with demo("--seconds", 7.5, "--port", 0, "--metrics-port", 0) as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    table = rows(output)
    assert list(dict.fromkeys(row["load"] for row in table)) == ["waiting", "+ computing", "+ blocking"], output

    for kind in ("steps", "timers", "reads"):
        assert any(int(row[kind]) > 0 for row in table), f"no {kind} at all:\n{output}"
    blocking = [row for row in table if row["load"] == "+ blocking"]
    # 0.4 s are in the bucket up to 0.5 s, or in a later one on a machine that is slow besides.
    assert max(seconds(row["slowest"]) for row in blocking) >= 0.5, output
    assert max(seconds(row["blocked"]) for row in blocking) >= 0.4, output

    books = re.search(r"In ([\d.]+) s the loop ran ([\d.]+) s: (.+) s\.", output)
    assert books, output
    states = [float(number) for number in re.findall(r"[a-z]+ ([\d.]+)", books[3])]
    assert len(states) == 5
    assert float(books[2]) == pytest.approx(sum(states), abs=0.005 * (len(states) + 1)), "the books do not balance"

    source = (DEMO.parent / "app.py").read_text().splitlines()
    number = next(n for n, text in enumerate(source, 1) if "time.sleep(seconds)" in text)
    assert re.search(rf"^  blocked [\d.]+ s by demo/app\.py:{number} in block$", output, re.M), output
    who, how, where = output[output.index("Who blocked the loop:") :].splitlines()[:3]
    assert re.search(r"demo/app\.py:\d+ in (block|compute), cause \w+$", who), who
    assert re.search(r"[\d.]+ s in \d+ blocks, the longest [\d.]+ s", how), how
    assert "`time.sleep(seconds)`" in where or " in block," not in who
    assert_narrow(output)
    assert_gone(output)


def assert_narrow(output):
    """What the demo itself prints fits into 100 columns; the application's lines are indented and may be longer."""
    own = [text for text in output.splitlines() if not text.startswith(("$ ", "  ")) or ROW.match(text)]
    assert [text for text in own if len(text) > 100] == []


def test_taken_ports_are_left_alone_and_ctrl_c_ends_all_of_it():
    """Where the usual ports are taken it takes others and says which; Ctrl-C is no error and leaves no process."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        taken = [server.getsockname()[1] for server in (first, second)]
        with demo("--seconds", 600, "--port", taken[0], "--metrics-port", taken[1]) as process:
            output = ""
            for line in process.stdout:
                output += line
                if ROW.match(line):
                    break
            os.killpg(process.pid, signal.SIGINT)
            rest, _ = process.communicate(timeout=SECONDS)
            output += rest
            assert process.returncode == 0, output
            with pytest.raises(ProcessLookupError):  # the whole session is empty
                os.killpg(process.pid, 0)
    for port in taken:
        assert f"Port {port} cannot be had (Address already in use)" in output
        assert f"http://127.0.0.1:{port}" not in output
    assert "the loop ran" in output, "no summary after Ctrl-C"
    assert_narrow(output)
    assert "Traceback" not in output, output
    assert_gone(output)
