"""Slots and heartbeats: a number for each process, free again when it ends, however it ends."""

import os
import signal
import subprocess
import sys

from obsloop.group import health, slots
from obsloop.group.membership import Member

HOLD = """
import sys
from obsloop.group import slots
slot = slots.take(sys.argv[1])
slot.beat({"process": 1, "at_ns": 5})
print(slot.number, flush=True)
sys.stdin.read()
"""


def other(folder):
    """Start a process that takes a slot and keeps it until it is killed. Return it and its slot's number."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def ended(process):
    """Kill a process, and wait until it is gone."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_successor_gets_the_number_of_a_killed_process(tmp_path):
    """So that its series go on where those of its predecessor ended."""
    first, zero = other(tmp_path)
    second, one = other(tmp_path)
    assert (zero, one) == (0, 1)
    assert slots.living(str(tmp_path)) == [0, 1]
    ended(first)
    assert slots.living(str(tmp_path)) == [1]
    assert slots.numbers(str(tmp_path)) == [0, 1]
    third, again = other(tmp_path)
    assert again == 0
    ended(second)
    ended(third)


def test_a_forked_child_does_not_keep_its_parents_slot(tmp_path):
    """The lock is on the open file, which a fork shares."""
    code = """
import os, sys, time
from obsloop.group import slots
slots.take(sys.argv[1])
if os.fork() == 0:
    os.close(1)
    time.sleep(30)
"""
    before = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], start_new_session=True)
    before.wait()
    try:
        assert slots.living(str(tmp_path)) == []
    finally:
        os.killpg(before.pid, signal.SIGKILL)


def test_there_is_an_end_to_slots(tmp_path, monkeypatch):
    """The 65th process is observed, but not part of the group."""
    monkeypatch.setattr(slots, "MAX_SLOTS", 3)
    taken = [slots.take(str(tmp_path)) for _ in range(3)]
    assert [slot.number for slot in taken] == [0, 1, 2]
    assert slots.take(str(tmp_path)) is None
    for slot in taken:
        slot.leave()


def test_a_heartbeat_that_is_half_written_is_not_read(tmp_path):
    """Its checksum does not fit."""
    slot = slots.take(str(tmp_path))
    slot.beat({"process": 7, "at_ns": 1})
    assert slots.read(str(tmp_path), 0).state == {"process": 7, "at_ns": 1}
    with open(tmp_path / "0.lock", "r+b") as file:
        file.seek(12)
        file.write(b"xxxx")
    assert slots.read(str(tmp_path), 0).state == {}
    slot.leave()


def test_a_heartbeat_without_room_keeps_its_numbers(tmp_path):
    """The file has a fixed size, so that it can be written on a full disk."""
    slot = slots.take(str(tmp_path))
    slot.beat({"process": 7, "at_ns": 1, "blocked_by": ["x" * 10_000]})
    assert slots.read(str(tmp_path), 0).state == {"process": 7, "at_ns": 1}
    assert (tmp_path / "0.lock").stat().st_size == 4096
    slot.leave()


def test_a_silent_process_counts_as_blocked(monkeypatch):
    """It is stopped, or C code holds its GIL: only its silence shows it. A process without a running loop is well."""
    state = {
        "process": 7, "at_ns": 10**12, "loops": {"main": 0}, "unhealthy_after_ns": 10**9, "blocked_by": [],
    }  # fmt: skip
    monkeypatch.setattr(health.clock, "monotonic_ns", lambda: 10**12 + 2 * 10**9)
    assert health.of(state).blocked == {}
    monkeypatch.setattr(health.clock, "monotonic_ns", lambda: 10**12 + 9 * 10**9)
    assert health.of(state).blocked == {"main": 9 * 10**9}
    assert health.of(state).silent_ns == 9 * 10**9
    assert health.of({**state, "loops": {}}).blocked == {}
    assert health.of({}) is None


def test_no_heartbeat_is_written_after_leaving(tmp_path):
    """The service's thread goes on while the process ends. Its descriptor may be the number of another file by then."""
    slot = slots.take(str(tmp_path))
    descriptor = slot._descriptor
    slot.leave()
    with (tmp_path / "of_the_program").open("wb", buffering=0) as file:
        assert file.fileno() == descriptor, "the lowest free number is taken"
        slot.beat({"process": 1, "at_ns": 5})
    assert (tmp_path / "of_the_program").read_bytes() == b""


def test_nothing_is_published_after_leaving(tmp_path):
    """The file is the successor's then: what it has published must stay."""
    slot = slots.take(str(tmp_path))
    member = Member(str(tmp_path), slot, 1.0)
    member.leave()
    (tmp_path / "0.json").write_text("of the successor")
    member.publish()
    assert (tmp_path / "0.json").read_text() == "of the successor"
