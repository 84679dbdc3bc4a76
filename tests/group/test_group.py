"""A group of real processes: one address gives the metrics, pages and health of all, whatever happens to one."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.blocking.support import until
from tests.group.workers import Group, Worker

BLOCKED = "asyncio_eventloop_block_time_seconds_total"
TIME = "asyncio_eventloop_time_seconds_total"


@pytest.fixture
def place():
    """A folder with a short path: sockets in it have names of at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="obsloop") as path:
        yield Path(path)


@pytest.fixture
def group(place):
    """Three workers."""
    found = Group(place, 3)
    yield found
    found.close()


def blocked_by(group, function="__main__.block"):
    """Seconds that the workers' loops were blocked by this function."""
    return group.metric(BLOCKED, code_function_name=function) or 0.0


def test_one_scrape_has_all_workers(group):
    """Blocks of all three add up; what only makes sense for one worker has its number."""
    for worker, seconds in zip(group.workers, (0.2, 0.3, 0.4), strict=True):
        worker.do("block", seconds)
    until(lambda: blocked_by(group) >= 0.9, 60)  # a block is counted when its callback has ended, a moment later
    for number in "012":
        assert group.metric(TIME, worker=number) > 0.2
        assert group.metric("asyncio_task_active", worker=number) == 1.0
    (culprit,) = [entry for entry in group.json("/")["culprits"] if entry["function"] == "__main__.block"]
    assert culprit["windows"]["5m"]["blocks"] == 3
    assert culprit["windows"]["5m"]["seconds"] == pytest.approx(blocked_by(group), rel=0.02)
    assert {loop["worker"] for loop in group.json("/")["loops"]} == {0, 1, 2}
    assert {event["worker"] for event in group.json("/slow")["events"]} == {0, 1, 2}
    assert {task["worker"] for task in group.json("/tasks")["tasks"]} == {0, 1, 2}
    assert {task["worker"] for task in group.json("/tasks?worker=1")["tasks"]} == {1}
    assert "block" in group.get("/?format=text")[1]
    samples = group.json("/profile")["samples"]
    assert {sample["labels"]["worker"] for sample in samples} == {"0", "1", "2"}
    assert sum(sample["ns"] for sample in samples) / 1e9 == pytest.approx(group.metric(BLOCKED), rel=0.02)
    assert {sample["labels"]["worker"] for sample in group.json("/profile?worker=1")["samples"]} == {"1"}


def test_the_head_says_how_many_workers_there_are(group):
    """In the text and on each page; with `?worker=N` it names that worker and its process, without one it says so."""
    assert group.get("/?format=text")[1].startswith("obsloop, 3 workers, ")
    for path in ("/", "/slow", "/tasks", "/profile"):
        assert '<span class="dim">3 workers</span>' in group.get(f"{path}?format=html")[1]
    process = group.workers[2].process.pid
    assert group.get("/?format=text&worker=2")[1].startswith(f"obsloop, worker 2, process {process}, ")
    assert f'<span class="dim">worker 2, process {process}</span>' in group.get("/?format=html&worker=2")[1]
    assert group.get("/?format=text&worker=9")[1].startswith("obsloop, no worker 9, ")


def test_counters_never_go_back(group):
    """One worker is killed, one ends, and successors take their numbers: the sums only grow."""
    for worker in group.workers:
        worker.do("block", 0.2)
    until(lambda: blocked_by(group) >= 0.6, 60)
    before = blocked_by(group), group.metric(TIME), group.metric(TIME, worker="1")
    group.workers[1].kill()
    group.workers[2].end()
    without = blocked_by(group), group.metric(TIME), group.metric(TIME, worker="1")
    assert without[0] >= before[0]
    assert group.metric("asyncio_task_active", worker="1") is None
    assert group.health()[1]["workers"].keys() == {"0"}
    successor = group.add()
    assert group.health()[1]["workers"].keys() == {"0", "1"}
    successor.do("block", 0.2)
    until(lambda: blocked_by(group) >= 0.8, 60)
    after = blocked_by(group), group.metric(TIME), group.metric(TIME, worker="1")
    for old, new in zip(without, after, strict=True):
        assert new > old - 1e-6


@pytest.mark.parametrize("how", ["hold", "stop"])
def test_a_stuck_worker_does_not_matter(group, how):
    """C code holds the GIL, or the process is stopped: the others answer, say so, and have its last metrics."""
    stuck = group.workers[0]  # the one that made the listening socket
    stuck.do("block", 0.2)
    until(lambda: blocked_by(group) >= 0.2, 60)  # counted when the callback has ended, a moment later
    if how == "hold":
        stuck.send("hold", 600)
    else:
        stuck.signal(signal.SIGSTOP)
    # A client whom it has accepted just before would wait for it.
    until(lambda: group.silent_seconds(0) > 1.5, 60)
    until(lambda: group.health()[0] == 503, 60)
    state = group.health()[1]["workers"]["0"]
    assert state["status"] == "stuck"
    assert state["process"] == stuck.process.pid
    assert state["blocked_seconds"]["main"] > 1.0
    assert group.health()[1]["workers"]["1"]["status"] == "ok"
    assert blocked_by(group) >= 0.2
    assert group.metric("asyncio_eventloop_blocked_time_seconds", worker="0") > 1.0
    assert group.metric("asyncio_eventloop_blocked_time_seconds", worker="1") == 0.0
    assert f"Worker 0 (process {stuck.process.pid}) is stuck" in " ".join(group.get("/?format=text")[1].split())
    group.workers[1].do("block", 0.2)
    until(lambda: blocked_by(group) >= 0.4, 60)
    newcomer = group.add()  # it gets the listening socket from one that is not stuck
    newcomer.do("block", 0.2)
    until(lambda: blocked_by(group) >= 0.6, 60)


def test_the_one_that_bound_the_port_can_go(group):
    """All of them listen on the same socket, so there is nothing to take over."""
    group.workers[0].kill()
    assert group.get("/healthz")[0] == 200
    group.workers[1].kill()
    assert group.get("/healthz")[0] == 200
    assert group.metric(TIME) > 0.0


def test_a_blocked_worker_makes_the_group_unhealthy(group):
    """/healthz names it, its loop and, if a sample saw it, its culprit."""
    group.workers[2].send("block", 4.0)
    until(lambda: group.health()[0] == 503 and group.health()[1]["workers"]["2"]["blocked_by"], 60)
    state = group.health()[1]["workers"]["2"]
    if state["status"] == "blocked":
        (by,) = state["blocked_by"]
        assert by["function"] == "__main__.block"
        assert by["cause"] == "syscall"
    group.workers[2].wait_for("done")
    until(lambda: group.health()[0] == 200, 60)


def test_the_last_second_is_all_that_a_kill_can_lose(group):
    """Published are published each second without a scrape."""
    worker = group.workers[1]
    worker.do("block", 0.3)
    until(lambda: any("__main__.block" in path.read_text() for path in group.folder.glob("obsloop/*/1.json")), 60)
    worker.kill()
    assert blocked_by(group) >= 0.3


def test_without_a_folder_each_process_is_served_by_itself(place):
    """A read-only system: one line says why, and the program runs on."""
    blocked = place / "file"
    blocked.write_text("")
    worker = Worker(place, "127.0.0.1:0", OBSLOOP_GROUP=str(blocked / "group"))
    try:
        worker.do("block", 0.01)
        worker.end()
        lines = worker.process.stderr.read().splitlines()
        assert len(lines) == 1
        assert "cannot share 127.0.0.1:0 with other processes" in lines[0]
        assert "Not a directory" in lines[0]
    finally:
        worker.close()


def test_a_full_disk_costs_one_line(place):
    """The others ask for fresh metrics over the socket, which needs no disk."""
    group = Group(place, 1)
    try:
        # A folder in the place of the new file cannot be written to, as on a full disk.
        folder = next(group.folder.glob("obsloop/at-*"))
        os.mkdir(folder / "1.json.new")
        limited = group.add()
        limited.do("block", 0.2)
        until(lambda: blocked_by(group) >= 0.2, 60)
        assert group.health()[0] == 200
        time.sleep(2.5)  # it tries again each second
        limited.end()
        lines = limited.process.stderr.read().splitlines()
        assert len(lines) == 1
        assert "The program runs on." in lines[0]
    finally:
        group.close()


def test_the_folder_goes_with_its_command(place):
    """The first process of `obsloop run` removes the folder when it is the last to end."""
    worker = Worker(place, "127.0.0.1:0", OBSLOOP_GROUP="shop")
    worker.end()
    worker.close()
    state = json.loads((place / "obsloop" / "shop" / "0.json").read_text())
    assert state["loops"]["main"]["data"][TIME.removesuffix("_seconds_total").replace("_", ".")]
    from obsloop.group import folder

    path = place / f"run-{os.getpid()}-x"
    path.mkdir(mode=0o700)
    folder.leave(str(path))
    assert not path.exists()
