"""What `obsloop top` reads of real processes, whatever state they are in."""

import json
import os
import signal
import socket

import pytest

from obsloop.base import clock
from obsloop.group import slots
from obsloop.top import groups, once, shapes, target
from obsloop.top.local import Local
from obsloop.top.overview import Overview
from obsloop.top.remote import Remote
from obsloop.top.source import SourceError
from tests.blocking.support import until
from tests.group.workers import Worker


def states(source):
    """The overview's rows as data, of the only group."""
    found = Overview().states(source.read())
    return found[0][1] if found else []


def state(source, number):
    """The row of one worker."""
    return next((each for each in states(source) if each["worker"] == number), {})


def test_a_known_block_is_found_with_its_culprit_and_stack(workers):
    """While it lasts, and afterwards as the last block of its worker and in the sums."""
    source = Local(target.Target())
    until(lambda: len(states(source)) == 2, 60)
    workers.workers[1].send("block", 6.0)
    until(lambda: state(source, 1).get("blocked_now"), 60)
    now = state(source, 1)["blocked_now"]
    assert now["function"] == "__main__.block"
    assert any(frame["function"] == "__main__.block" for frame in now["stack"])
    assert state(source, 0)["status"] == "ok"
    workers.workers[1].wait_for("done")
    until(lambda: state(source, 1)["last_block"] and not state(source, 1)["blocked_now"], 60)
    last = state(source, 1)["last_block"]
    assert last["function"] == "__main__.block"
    assert last["seconds"] >= 6.0
    assert state(source, 1)["blocked_share"] > 0.3
    (culprit,) = [each for each in source.read().groups[0].overview["culprits"] if each["function"] == "__main__.block"]
    assert culprit["windows"]["5m"]["seconds"] >= 6.0
    printed = once.as_text(source.read(), 80)
    assert "__main__.block" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("how", ["hold", "stop"])
def test_a_silent_process_is_shown_as_blocked(workers, how):
    """From its heartbeat and what it published last; the other one is as it was, and reading does not wait."""
    source = Local(target.Target())
    until(lambda: len(states(source)) == 2, 60)
    until(lambda: groups.metrics(next(iter(groups.found())).path, 0)["loops"], 60)
    stuck = workers.workers[0]
    if how == "hold":
        stuck.send("hold", 600)
    else:
        stuck.signal(signal.SIGSTOP)
    until(lambda: state(source, 0)["blocked_seconds"] > 1.0, 60)
    found = state(source, 0)
    assert found["status"] == "stopped" if how == "stop" else found["status"] in ("late", "stuck")
    assert found["process"] == stuck.process.pid
    assert found["tasks"] == 1
    until(lambda: state(source, 0)["blocked_share"] == 1.0, 60)
    assert state(source, 1)["status"] == "ok"
    row = next(row for row in Overview().table(source.read(), "worker").rows if row.cells[2] == str(stuck.process.pid))
    assert row.alarm
    assert row.cells[-1].startswith("STOPPED" if how == "stop" else "STUCK")
    assert "is silent" in " ".join(row.detail)
    assert f"Worker 0 (process {stuck.process.pid})" in once.lists.missing(source.read())[0]


def test_a_process_is_shown_until_it_ends(workers):
    """A process that was killed leaves its files; they are not taken for a process."""
    source = Local(target.Target())
    until(lambda: len(states(source)) == 2, 60)
    workers.workers[0].kill()
    assert [each["worker"] for each in states(source)] == [1]
    workers.workers[1].kill()
    assert source.read().groups == []


def test_folders_of_dead_groups_hide_no_living_one(workers, place):
    """More of them than groups are shown, with names that come first."""
    for i in range(groups.MAX_GROUPS + 20):
        dead = place / "obsloop" / f"a-{i}"
        dead.mkdir(0o700)
        (dead / "0.lock").touch(0o600)
    until(lambda: len(states(Local(target.Target()))) == 2, 60)


def test_what_is_asked_for_is_shown(workers, place, monkeypatch):
    """A process id, a group's name, its beginning, a folder; and nothing else. What is left out is counted."""
    other = Worker(place, "127.0.0.1:0", OBSLOOP_GROUP="shop")
    try:
        everything = Local(target.Target())
        until(lambda: sum(len(group.workers) for group in everything.read().groups) == 3, 60)
        by_process = Local(target.parse(str(workers.workers[1].process.pid)))
        assert [each["process"] for each in states(by_process)] == [workers.workers[1].process.pid]
        monkeypatch.setattr(groups, "MAX_GROUPS", 1)
        few = Local(target.Target()).read()
        assert [group.name for group in few.groups] == [everything.read().groups[0].name]
        assert few.note == "groups that are not shown: 1; see one with: obsloop top GROUP"
        for name in ("shop", "sh", str(place / "obsloop" / "shop")):
            assert [each["process"] for each in states(Local(target.parse(name)))] == [other.process.pid]
        assert Local(target.parse("at-9")).read().groups == []
        assert Local(target.Target(process=1)).read().groups == []
    finally:
        other.close()


def test_a_url_gives_the_same(workers):
    """Workers, loops, culprits and tasks of a service, over HTTP; also while one of its workers is stopped."""
    workers.workers[0].do("block", 0.3)
    source = Remote(target.parse(workers.address).url)
    until(
        lambda: any(each["function"] == "__main__.block" for each in source.read().groups[0].overview["culprits"]), 60
    )
    assert {each["process"] for each in states(source)} == {worker.process.pid for worker in workers.workers}
    listed = source.read(tasks=True).groups[0].tasks
    assert {task["worker"] for task in listed["tasks"]} == {0, 1}
    workers.workers[0].signal(signal.SIGSTOP)
    until(lambda: workers.silent_seconds(0) > 3.0, 60)
    until(lambda: state(source, 0).get("status") == "stuck", 60)
    assert state(source, 0)["blocked_seconds"] > 2.5
    for worker in workers.workers:
        worker.kill()
    assert "does not answer" in source.read().note
    with pytest.raises(SourceError, match="does not answer"):
        Remote(f"http://{workers.address}/").read()


def test_a_folder_that_others_may_enter_is_not_read(place):
    """And neither is a file, a symbolic link, or a folder that is not there."""
    folder = place / "folder"
    folder.mkdir(mode=0o700)
    assert groups.is_private(str(folder))
    folder.chmod(0o750)
    assert not groups.is_private(str(folder))
    link = place / "link"
    link.symlink_to(place)
    assert not groups.is_private(str(link))
    assert not groups.is_private(str(place / "none"))
    (place / "file").write_text("")
    assert not groups.is_private(str(place / "file"))


def test_a_process_that_answers_nothing_costs_no_more_than_the_time_limit(place):
    """Its socket takes the connection and the request, and it says nothing; its heartbeat says that it lives."""
    folder = place / "obsloop" / "shop"
    folder.mkdir(mode=0o700, parents=True)
    folder.parent.chmod(0o700)
    slot = slots.take(str(folder))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(slots.path_of(str(folder), slot.number, "sock"))
        silent.listen()
        beat = {"process": os.getpid(), "at_ns": clock.monotonic_ns(), "loops": {"a\x1b[2Jb": 0}}
        slot.beat(beat | {"unhealthy_after_ns": 5 * 10**9, "blocked_by": []})
        source = Local(target.Target())
        (found,) = states(source)
        assert found["loop"] == "a?[2Jb"
        assert found["status"] == "late"
    slot.leave()


def test_nonsense_in_answers_does_no_harm():
    """Wrong types, control characters, numbers without sense and long lists become what can be shown."""
    raw = {
        "loops": [{"loop": "\x1b]0;x\x07", "running": 1, "windows": [], "tasks": "7"}, None, 3],
        "culprits": {"a": 1},
    }
    found = shapes.overview(raw)
    assert found["loops"][0]["loop"] == "?]0;x?"
    assert found["loops"][0]["tasks"] is None
    assert found["culprits"] == []
    assert len(found["loops"]) == 3
    for nonsense in ("1", None, True, [], float("nan"), float("inf"), 10**400):
        assert shapes.number(nonsense) is None
    assert len(shapes.LOOPS([{}] * 5_000)) == shapes.MAX_ENTRIES
    assert shapes.tasks("x")["tasks"] == []
    assert json.loads(json.dumps(found))


def test_an_argument_that_means_nothing_is_refused():
    """With what was expected."""
    assert target.parse("10.1.2.3:9464").url == "http://10.1.2.3:9464/"
    assert target.parse("https://host/obsloop/").url == "https://host/obsloop/"
    assert target.parse("run-12").group == "run-12"
    for wrong in ("ftp://host", "http://", "http://user:pass@host/", "http://host/?a=b", "no such thing", "http://h:x"):
        with pytest.raises(target.TargetError):
            target.parse(wrong)
