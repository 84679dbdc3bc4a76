"""The opposite of `test_detection`: a loop that does nothing wrong is not accused, however busy the machine is."""

from collections import Counter

import pytest

from tests.detection.healthy import loaded
from tests.detection.seen import THE_MACHINES, in_a_process

SECONDS = 10


@pytest.mark.once
def test_a_healthy_loop_on_a_loaded_machine_is_not_accused(capsys):
    """Ten seconds among busy processes, two for each processor: whatever is told, the machine was the cause of it."""
    with loaded() as processes:
        seen = in_a_process("tests.detection.healthy", str(SECONDS), timeout=SECONDS * 4)
    told = dict(Counter((event["type"], event["cause"]) for event in seen["events"]))
    with capsys.disabled():
        print(f"\n{SECONDS} s, {processes} busy processes, {seen['iterations']} iterations; told: {told or 'nothing'}")
    assert seen["iterations"] > SECONDS * 10
    assert [event for event in seen["events"] if event["cause"] not in THE_MACHINES] == []
