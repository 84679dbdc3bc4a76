"""Who blocked a loop: share the time of an iteration out among the culprits of its slow callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.introspect import callbacks
from obsloop.introspect.own_code import Culprit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obsloop.introspect.functions import Site

MAX_CULPRITS = 100
"""Of one iteration. Only a program whose slow callbacks are very short has more."""


class Share(NamedTuple):
    """The part of a block that one culprit took, with one cause."""

    culprit: Culprit
    cause: str
    ns: int
    route: str = ""
    """Of the web request in which it ran, if there was one."""


class Blame:
    """The slow callbacks of the present iteration, by culprit and cause."""

    __slots__ = ("_shares",)

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], Share] = {}

    def __bool__(self) -> bool:
        """Return whether a callback was slow."""
        return bool(self._shares)

    def add(self, culprit: Culprit, cause: str, ns: int, route: str = "") -> None:
        """Add a slow callback of ``ns`` nanoseconds. One culprit too many adds to the first one's time."""
        key = culprit.function, cause
        known = self._shares.get(key)
        if known is None and len(self._shares) >= MAX_CULPRITS:
            key, known = next(iter(self._shares.items()))
        if known is None:
            self._shares[key] = Share(culprit, cause, ns, route)
        else:
            self._shares[key] = known._replace(ns=known.ns + ns)

    def shares(self, spent_ns: int) -> list[Share]:
        """Share ``spent_ns`` out, in proportion to what each took; the largest first."""
        return in_proportion(self._shares.values(), spent_ns)


def in_proportion(shares: Iterable[Share], spent_ns: int) -> list[Share]:
    """Scale the shares so that their sum is ``spent_ns``; the largest first."""
    ranked = sorted(shares, key=lambda share: share.ns, reverse=True)
    total_ns = sum(share.ns for share in ranked)
    if not total_ns:
        return ranked
    scaled = [share._replace(ns=spent_ns * share.ns // total_ns) for share in ranked]
    rest_ns = spent_ns - sum(share.ns for share in scaled)
    return [scaled[0]._replace(ns=scaled[0].ns + rest_ns), *scaled[1:]]


def unseen(obs: Any, handle: Any, site: Site) -> Culprit:
    """Return the culprit of a callback that no sample saw: its own function.

    A task that waits in a coroutine of the program's is named after the outermost such coroutine, because servers and
    tracing tools put coroutines of theirs around it.
    """
    site = callbacks.own_coroutine(handle, obs.own_code) or site
    return Culprit(site.name, site.filename, site.lineno, seen=False)
