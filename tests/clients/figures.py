"""What obsloop says about a client's work, by the words that the tests use. Only public names are used here."""

import obsloop

DURATION = "asyncio.eventloop.callback.duration"
DELAY = "asyncio.eventloop.schedule.delay"
STATES = ("idle", "poll", "callback", "gc", "overhead")


class Figures:
    """The figures of one loop name at one moment."""

    def __init__(self, snapshot: obsloop.Snapshot) -> None:
        self.snapshot = snapshot

    def ran(self, kind: str) -> int:
        """How many callbacks of a kind there were. What was ready once ran once, so two histograms must say so."""
        count = self.snapshot.histogram(DURATION, kind).count
        assert self.snapshot.histogram(DELAY, kind).count == count
        return count

    def state(self, name: str) -> float:
        """Seconds in a state."""
        return float(self.snapshot.value("asyncio.eventloop.time", name))

    @property
    def run_time(self) -> float:
        """Seconds that the loop ran."""
        return self.snapshot.run_time

    @property
    def exceptions(self) -> dict[tuple[str, ...], float]:
        """Errors that nobody caught, by class and origin."""
        return {labels: n for labels, n in self.snapshot["asyncio.eventloop.exceptions"].items() if n}

    @property
    def lookups(self) -> dict[str, int]:
        """How many names were looked up, by error."""
        points = self.snapshot["dns.lookup.duration"]
        return {error: histogram.count for (error,), histogram in points.items() if histogram.count}

    def jobs(self, executor: str = "default") -> dict[str, int]:
        """How many jobs of an executor ended, by outcome."""
        points = self.snapshot["asyncio.executor.job.duration"]
        return {outcome: h.count for (name, outcome), h in points.items() if name == executor and h.count}

    def slow(self, function: str) -> int:
        """How many slow callbacks a coroutine or function had; its name without the module."""
        points = self.snapshot["asyncio.eventloop.callback.slow"]
        return sum(int(n) for (name,), n in points.items() if name.endswith(f".{function}"))

    def opened(self, transport: str, role: str) -> int:
        """How many connections the loop's transports had: `tcp` or `unix`, as `client` or `server`."""
        return int(self.snapshot["asyncio.transport.opened"].get((transport, role), 0))

    def transferred(self, direction: str, transport: str) -> int:
        """How many bytes the transports' sockets took (`write`) or gave (`read`)."""
        return int(self.snapshot["asyncio.transport.io"].get((direction, transport), 0))

    def connects(self, network: str) -> tuple[int, int]:
        """How many attempts to connect succeeded, and how many failed, over `ipv4` or another network."""
        points = self.snapshot["asyncio.connect.duration"]
        found = {error: histogram.count for (name, error), histogram in points.items() if name == network}
        return found.pop("", 0), sum(found.values())

    def total(self, signal: str) -> float:
        """A signal summed over its labels."""
        return sum(self.snapshot[signal].values())


def assert_the_books_balance(figures: Figures, took: float) -> None:
    """What holds whatever the client did: its loop ran for at most `took` seconds, and nothing is left or was lost."""
    snapshot = figures.snapshot
    assert not snapshot.running
    # The clock around it all is read outside, where a busy machine may stand still: it may have seen more, never less.
    assert 0 < figures.run_time <= took
    assert all(figures.state(state) >= 0 for state in STATES)
    callbacks = sum(histogram.sum for histogram in snapshot[DURATION].values())
    assert callbacks <= figures.state("callback") + figures.state("gc") + 1e-6
    assert figures.state("callback") <= callbacks + 1e-6
    iterations = snapshot.value("asyncio.eventloop.iterations")
    assert snapshot.histogram("asyncio.eventloop.ready.depth").count == iterations
    assert figures.exceptions == {}
    for gauge in ("queue.length", "thread.active", "oldest_job.age"):
        assert figures.total(f"asyncio.executor.{gauge}") == 0, gauge
    for gauge in ("asyncio.transport.active", "asyncio.server.connections.active"):
        assert figures.total(gauge) == 0, gauge
    opened, closed = (snapshot[f"asyncio.transport.{what}"] for what in ("opened", "closed"))
    for transport in {transport for transport, _ in (*opened, *closed)}:
        ends = [sum(n for (name, _), n in points.items() if name == transport) for points in (opened, closed)]
        assert ends[0] == ends[1], (transport, dict(opened), dict(closed))
    accepted = figures.total("asyncio.server.accepted")
    assert accepted == figures.opened("tcp", "server") + figures.opened("unix", "server")
    # A connection that has succeeded becomes a transport; asyncio's own pipe to itself is none.
    assert figures.connects("ipv4")[0] == figures.opened("tcp", "client")
