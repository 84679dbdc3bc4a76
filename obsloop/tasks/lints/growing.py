"""Tasks that grow in number, by coroutine and by the line that creates them.

A program's tasks come and go, and under load there are more for a while. Reported is growth that does not end: over
five windows, one after the other, the smallest number of live tasks was larger in each than in the one before, and rose
by a hundred and by a factor of two in all. With the smallest number, short-lived tasks of the same kind neither hide
growth nor look like it. Growth is reported once, and again when the number doubles. It is over when half of the tasks
are gone.

By coroutine, a scan counts all live tasks (above ``scan.MAX_LOOKED``, a known share). By line, it knows one creation in
``hotpath.creation_samples.EVERY``, which gives an estimate. That names the line where a coroutine's tasks grow, and
finds a line that makes tasks of many different coroutines.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from obsloop.hotpath import creation_samples
from obsloop.introspect import attributes
from obsloop.introspect.functions import Site
from obsloop.metrics.self_metrics import dropped
from obsloop.tasks.lints import findings, scan
from obsloop.tasks.lints.scan import Kind, TaskScan

if TYPE_CHECKING:
    from obsloop.hotpath.creation_samples import Place
    from obsloop.metrics.runs import Run

LINT = "growing"
WINDOWS = 5
FACTOR = 2
MAX_KINDS = 1_000
"""How many coroutines and lines are followed at once."""
MIN_SAMPLES = 16
"""A line must have so many more samples, which are about a thousand tasks. Fewer may be chance."""


class Trend:
    """How many tasks there were, window by window."""

    __slots__ = ("base", "began_ns", "ends_ns", "last", "low", "rises")

    def __init__(self, n: int, now_ns: int, window_ns: int) -> None:
        self.base = self.last = -1
        """The smallest number of the window before the first rise, and that of the last window."""
        self.low = n
        """The smallest number of the present window."""
        self.began_ns = now_ns
        self.ends_ns = now_ns + window_ns
        self.rises = 0

    def add(self, n: int, now_ns: int, window_ns: int) -> bool:
        """Note that there are ``n`` now. Return whether a window has ended."""
        self.low = min(self.low, n)
        if now_ns < self.ends_ns:
            return False
        if self.low > self.last >= 0:
            self.rises += 1
        else:
            self.rises = 0
            self.base = self.low
            self.began_ns = self.ends_ns - window_ns
        self.last = self.low
        self.low = n
        self.ends_ns = now_ns + window_ns
        return True

    def grows(self, by: float) -> bool:
        """Return whether it has grown for long enough, and by ``by`` or more."""
        return self.rises >= WINDOWS and self.last >= FACTOR * self.base and self.last - self.base >= by


class Growing:
    """The lint."""

    __slots__ = ("_groups", "_trends")

    def __init__(self) -> None:
        self._groups = findings.Groups()
        self._trends: dict[findings.Key, Trend] = {}

    def end(self, now: TaskScan) -> None:
        """Evaluate the scan, which has counted all live tasks."""
        places, of_kind = self._living(now)
        present: set[findings.Key] = set()
        for kind in now.kinds.values():
            present.add(kind.key)
            trend = self._follow(kind.key, round(kind.n * now.every), now, kind.run)
            if trend is not None:
                self._tell_of_kind(kind, trend, now, of_kind.get(kind.key, Counter()))
        for key, (run, place, samples, kinds) in places.items():
            present.add(key)
            trend = self._follow(key, samples * creation_samples.EVERY, now, run)
            most, n = kinds.most_common(1)[0]
            if trend is not None and not (self._groups.level(most) and 2 * n >= samples):
                self._tell_of_place(key, run, place, trend, now, len(kinds))
        for key in list(self._trends):
            if key not in present:
                del self._trends[key]
        self._groups.settle(present)

    def _follow(self, key: findings.Key, n: int, now: TaskScan, run: Run) -> Trend | None:
        """Note that there are ``n``. Return the trend if a window has ended."""
        loop = run.loop()
        if loop is None:
            return None
        window_ns = round(loop._obsloop.settings.growing_after * 1e9 / WINDOWS)
        trend = self._trends.get(key)
        if trend is None:
            if len(self._trends) < MAX_KINDS:
                self._trends[key] = Trend(n, now.began_ns, window_ns)
            else:
                dropped["task_lint"] += 1
            return None
        return trend if trend.add(n, now.began_ns, window_ns) else None

    def _is_news(self, key: findings.Key, trend: Trend, by: float) -> bool:
        """Return whether to report this growth. It is over when half of the number reported is gone."""
        level = self._groups.level(key)
        if level and trend.last <= level // 2:
            return self._groups.is_news(key, 0)
        return bool(level or trend.grows(by)) and self._groups.is_news(key, trend.last)

    def _tell_of_kind(self, kind: Kind, trend: Trend, now: TaskScan, places: Counter[Place]) -> None:
        loop = kind.run.loop()
        if loop is None or not self._is_news(kind.key, trend, loop._obsloop.settings.growing_by * now.every):
            return
        known = scan.site_and_place(kind.ref, loop._obsloop.own_code)
        if known is None:
            return
        site, detail = known
        if places:
            place, n = places.most_common(1)[0]
            of = sum(places.values())
            detail = f"created at {place.filename}:{place.lineno} in {place.function} ({n} of {of} samples); {detail}"
        self._tell(loop._obsloop, site, trend, now, detail, "live tasks of this coroutine")

    def _tell_of_place(
        self, key: findings.Key, run: Run, place: Place, trend: Trend, now: TaskScan, coroutines: int
    ) -> None:
        loop = run.loop()
        if loop is None:
            return
        obs = loop._obsloop
        if not self._is_news(key, trend, max(obs.settings.growing_by, MIN_SAMPLES * creation_samples.EVERY)):
            return
        site = Site(attributes.clean(place.function), place.filename, place.lineno)
        self._tell(obs, site, trend, now, f"tasks of {coroutines} coroutines", "live tasks created here, by estimate")

    def _tell(self, obs: Any, site: Site, trend: Trend, now: TaskScan, detail: str, what: str) -> None:
        findings.add(obs, LINT)
        seconds = (now.began_ns - trend.began_ns) / 1e9
        message = f"{trend.last} {what}, up from {trend.base}: their number has been growing for {seconds:.0f} s"
        findings.tell(obs, LINT, site, message, n=trend.last, seconds=seconds, detail=detail)

    def _living(
        self, now: TaskScan
    ) -> tuple[dict[findings.Key, tuple[Run, Place, int, Counter[findings.Key]]], dict[findings.Key, Counter[Place]]]:
        """Return the live samples by the line that created them, and by coroutine the lines that created its tasks."""
        places: dict[findings.Key, tuple[Run, Place, int, Counter[findings.Key]]] = {}
        of_kind: dict[findings.Key, Counter[Place]] = {}
        for task, place in creation_samples.living():
            run = now.runs.get(scan.loop_id_of(task) or 0)
            if run is None:
                continue
            kind = scan.key_of(run, scan.coroutine_of(task))
            key = (id(run.counters), "created", *place)
            _, _, n, kinds = places.get(key, (run, place, 0, Counter[findings.Key]()))
            kinds[kind] += 1
            places[key] = run, place, n + 1, kinds
            of_kind.setdefault(kind, Counter())[place] += 1
        return places, of_kind
