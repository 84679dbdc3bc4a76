"""The proof: a block of 0.3 s in every place a program can put one, and who it was, where and why, live and afterwards.

Each case runs in a process of its own, on both cores. What blocks by sleeping on one core blocks by computing on the
other; `python -m tests.detection` does both on both, and prints the table.
"""

import socket
from collections import Counter

import pytest

from tests.detection import cases, child, seen
from tests.detection.seen import CORES, Seen

pytestmark = pytest.mark.both_cores

THRESHOLD = 0.1  # asyncio's own
SOON = 0.1  # after the end of a block that nobody could look at; the interpreter's switch interval is 5 ms


def pairs() -> list:
    """(case, way, core): one way to block for each case and core."""
    chosen = []
    for number, (name, case) in enumerate(cases.POSSIBLE.items()):
        for core in CORES:
            way = case.ways[(number + (core == "pure")) % len(case.ways)]
            label = "-".join(filter(None, (name, way, core)))
            chosen.append(pytest.param((name, way, core), id=label, marks=pytest.mark.xdist_group(label)))
    return chosen


@pytest.fixture(scope="module", params=pairs())
def block(request) -> Seen:
    """One case, after it was run."""
    found = seen.run(*request.param)
    assert found.duration >= 2 * THRESHOLD, "no block was put in"
    return found


def names_the_block(event, block) -> None:
    """Kind, name and place are those of the function that the loop ran, the duration that of the block."""
    case = block.case
    assert event["loop_name"] == child.NAME
    assert (event["kind"], event["name"]) == (case.kind, f"{cases.__name__}.{case.runs}")
    assert (event["filename"], event["lineno"]) == seen.definition(case.runs)
    assert (event["task_name"] or "").startswith(case.task_name or "")
    assert (event["task_name"] is None) == (case.task_name is None)
    assert event["detail"].startswith(case.detail)
    assert event["started_at"] - block.epoch <= block.began + 0.01
    assert 0 <= event["schedule_delay"] < 1


def names_the_line(event, block) -> bool:
    """Whether the culprit is the line of the block."""
    culprit = event["culprit_filename"], event["culprit_lineno"], event["culprit_function"].rpartition(".")[2]
    return event["culprit_seen"] and culprit in seen.block_lines(block.case, block.way)


def lasted_as_long(event, block) -> None:
    """As long as the program says; not absurdly longer."""
    assert block.duration <= event["duration"] < 2 * block.duration


def test_it_is_seen_while_it_lasts(block):
    """Once, by the watchdog, with the stack: from the function that the loop ran down to the line of the block.

    Where the block keeps everybody from looking, since it holds the GIL, the event comes right after it: with the stack
    where the loop was still in the function by then, else without.
    """
    event = block.the("LoopBlocked")
    names_the_block(event, block)
    assert event["thread"] == "obsloop-watchdog"
    assert event["duration"] >= THRESHOLD
    assert event["cause"] in block.causes
    function = block.case.runs.rpartition(".")[2]
    stacks = [[tuple(frame) for frame in frames] for _, frames in event["samples"]]
    if block.case.unseen:
        assert event["at"] <= block.ended + SOON
        assert [[frame[2] for frame in stack][:1] for stack in stacks] in ([], [[function]])
        assert event["culprit_filename"] == (cases.__file__ if stacks else event["filename"])
        assert stacks or event["detail"].endswith("seen at its end")
        return
    assert block.began < event["at"] < block.ended
    (stack,) = stacks
    assert event["samples"][0][0] == event["duration"]
    assert function in [name for _, _, name in stack]
    if block.case.arrange is cases.sixty_callbacks:
        return  # the sample may be of the beginning or end of any of the sixty
    assert set(seen.calls(block.case)) <= set(stack)
    if block.case.arrange is cases.getaddrinfo:
        filename, _, name = stack.pop()
        assert (filename, name) == (socket.__file__, "getaddrinfo")
    assert stack[-1] in seen.block_lines(block.case, block.way)
    assert names_the_line(event, block)


def test_its_end_is_told(block):
    """Once, by the watchdog: the same block, with its whole duration, its samples and the final cause."""
    blocked, event = block.the("LoopBlocked"), block.the("LoopUnblocked")
    names_the_block(event, block)
    lasted_as_long(event, block)
    assert event["thread"] == "obsloop-watchdog"
    assert event["at"] >= max(block.ended, blocked["at"])
    assert event["cause"] in block.causes
    if blocked["at"] < block.ended and not (block.case.unseen or block.case.arrange is cases.sixty_callbacks):
        assert names_the_line(event, block)
    assert event["samples"][: len(blocked["samples"])] == blocked["samples"]
    assert block.episodes == Counter(event["cause"] for event in block.all("LoopUnblocked"))


def test_it_is_told_after_the_fact(block):
    """A slow callback, and the slow iteration that it made; sixty short ones are a slow iteration and nothing else."""
    iteration = block.the("SlowIteration")
    sixty = block.case.arrange is cases.sixty_callbacks
    events = [iteration] if sixty else [block.the("SlowCallback"), iteration]
    for event in events:
        names_the_block(event, block)
        lasted_as_long(event, block)
        assert event["thread"] == "MainThread"
        assert event["at"] >= block.ended
        assert event["cause"] in block.causes
        assert sixty or block.case.unseen or names_the_line(event, block)
    (name, seconds, calls), *rest = iteration["top"]
    assert name == iteration["name"]
    for _, unnamed_seconds, unnamed_calls in (entry for entry in rest if entry[0] == "(unnamed)"):
        seconds, calls = seconds + unnamed_seconds, calls + unnamed_calls  # the first of sixty
    assert calls == (cases.SIXTY if sixty else 1)
    assert seconds == pytest.approx(block.duration, rel=0.1)
    slow = block.told("SlowCallback")
    if sixty:  # one of 5 ms is slow only where the machine held it up
        slow = [event for event in slow if event["cause"] not in seen.THE_MACHINES]
    assert slow == ([] if sixty else events[:1])
    assert dict(block.slow) == Counter(event["culprit_function"] for event in block.all("SlowCallback"))


def test_nothing_else_is_told(block):
    """No errors, and no event outside of the block."""
    assert block.told("CallbackError") == []
    assert len(block.told("SlowIteration")) == len(block.told("LoopBlocked")) == len(block.told("LoopUnblocked")) == 1
