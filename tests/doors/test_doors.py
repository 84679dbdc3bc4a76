"""Each server by its users' own line: one address counts all workers, through kills and reloads."""

import re
from pathlib import Path

import pytest

from tests.doors.servers import LIMITED, SERVERS
from tests.doors.story import BLOCK, SICK

pytestmark = [pytest.mark.clients, pytest.mark.once]
SERVING = re.compile(r"obsloop: serving http://127\.0\.0\.1:\d+/metrics$")
BLOCKED = re.compile(r"event loop (has been )?blocked")
UVLOOP = "obsloop run: uvloop is installed"


@pytest.mark.parametrize("server", SERVERS)
def test_a_server(server, stories):
    """Every block is counted once, no counter goes back, /healthz names who is blocked, and the end is the same."""
    table, seen = SERVERS[server], stories[server].result()
    assert seen.scraped == table.workers, "workers in one scrape"
    for blocked, counted in zip(seen.blocked, seen.counted, strict=True):
        # The rest of the callback counts too. If a turn is lost or counted twice, it is more than that.
        assert 0.98 * blocked < counted < blocked + BLOCK, (seen.blocked, seen.counted)
    assert seen.counters > 0, "the query below finds counters"
    assert seen.resets == 0
    assert [seen.sick_process] in seen.sick, f"during a block of {SICK} s, /healthz named the one that was blocked"
    assert seen.loops <= {"main", "Thread (_run_loop)"}, "one name for the loops of gunicorn's control socket"
    assert seen.code == seen.plain_code, seen.log
    lines = [line for line in seen.lines if not BLOCKED.search(line)]
    if table.takes_uvloop:
        assert lines.pop(0).startswith(UVLOOP)
    assert len(lines) == 1, seen.log
    assert SERVING.search(lines[0]), seen.log


@pytest.mark.parametrize("server", LIMITED)
def test_workers_that_end_after_some_requests(server, stories):
    """Every block is counted once, also those of workers that have ended; a successor gets its predecessor's number."""
    table, seen = LIMITED[server], stories[server].result()
    assert seen.processes >= 3 * table.workers
    (blocked,), (counted,) = seen.blocked, seen.counted
    assert 0.98 * blocked < counted < blocked + BLOCK, (blocked, counted)
    assert seen.counters > 0
    assert seen.resets == 0
    # gunicorn's master is a worker too, since it runs a loop. One that ends may be there for a moment still.
    every = {str(number) for number in range(table.workers + ("gunicorn" in table.command))}
    assert set().union(*seen.numbers) == every, seen.numbers


def test_the_guide_has_these_lines():
    """Each line of the guide's page is run here, and each that is run here is there."""
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text()
    lines = set(re.findall(r"`obsloop run ((?:(?!`).)+)`", page))
    assert lines == {table.command.replace("PORT", "8000") for table in (SERVERS | LIMITED).values()}
