"""The plain data of a profile, and pure functions on it.

A profile is a dictionary that JSON can hold, so that several processes can exchange and merge theirs:

    {"what": "blocked", "began": 1700000000.0, "seconds": 300.0, "dropped": 0,
     "frames": [["shop.export", "/srv/shop.py", 31, true], ...],
     "samples": [{"stack": [0, 4], "labels": {"cause": "cpu"}, "ns": 400000000, "count": 2}, ...]}

``frames`` are function, file, line (0 if unknown) and whether it is the program's own code. ``stack`` has indices of
frames, the outermost first. ``ns`` is the time that the samples stand for, in nanoseconds, and ``count`` their number.
``dropped`` is how many of these samples are under the frame ``_OTHER``, since there were too many stacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from obsloop.metrics.catalog import OTHER

MAX_STACKS = 2_000
"""Distinct stacks, with their labels, of one profile. More become one stack of the frame ``_OTHER``."""

Frame = tuple[str, str, int, bool]
"""Function, file, line, and whether it is the program's own code."""
Labels = tuple[tuple[str, str], ...]
Key = tuple[tuple[Frame, ...], Labels]
"""A stack, outermost frame first, and its labels."""

OTHERS: Frame = (OTHER, "", 0, False)
NOT_SAMPLED: Frame = ("(not sampled)", "", 0, False)
"""The innermost frame of time in which no sample was taken."""


class Sample(TypedDict):
    """The samples of one stack with the same labels."""

    stack: list[int]
    labels: dict[str, str]
    ns: int
    count: int


class Profile(TypedDict):
    """A profile, as above."""

    what: str
    """``blocked``, ``waiting`` or ``running``."""
    began: float
    """When the window begins, in seconds since the epoch."""
    seconds: float
    """The length of the window."""
    dropped: int
    frames: list[list[str | int | bool]]
    samples: list[Sample]


def make(
    what: str, began: float, seconds: float, dropped: int, sums: Iterable[tuple[Key, int, int]], limit: int = MAX_STACKS
) -> Profile:
    """Return the profile of these stacks, each with nanoseconds and count; the longest first.

    The shortest of more than ``limit`` stacks are added up under ``_OTHER``.
    """
    ranked = sorted(sums, key=lambda entry: -entry[1])
    if len(ranked) > limit:
        rest = ranked[limit - 1 :]
        dropped += sum(count for _, _, count in rest)
        other = ((OTHERS,), ()), sum(ns for _, ns, _ in rest), sum(count for _, _, count in rest)
        ranked = [*ranked[: limit - 1], other]
    numbers: dict[Frame, int] = {}
    samples: list[Sample] = [
        {
            "stack": [numbers.setdefault(frame, len(numbers)) for frame in frames],
            "labels": dict(labels),
            "ns": ns,
            "count": count,
        }
        for (frames, labels), ns, count in ranked
    ]
    return {
        "what": what,
        "began": began,
        "seconds": seconds,
        "dropped": dropped,
        "frames": [list(frame) for frame in numbers],
        "samples": samples,
    }


def sums_of(profile: Profile, more: Mapping[str, str] | None = None) -> Iterable[tuple[Key, int, int]]:
    """Yield each stack of a profile with its labels and ``more`` labels, its nanoseconds and its count."""
    frames: list[Frame] = [(str(f[0]), str(f[1]), int(f[2]), bool(f[3])) for f in profile["frames"]]
    for sample in profile["samples"]:
        labels = tuple(sorted({**sample["labels"], **(more or {})}.items()))
        yield (tuple(frames[i] for i in sample["stack"]), labels), sample["ns"], sample["count"]


def labelled(profile: Profile, **labels: str) -> Profile:
    """Return the profile with these labels on all its samples, such as ``worker="2"``."""
    sums = sums_of(profile, labels)
    return make(profile["what"], profile["began"], profile["seconds"], profile["dropped"], sums, limit=1 << 30)


def merge(profiles: Iterable[Profile], limit: int = MAX_STACKS) -> Profile:
    """Return one profile with the sums of several of the same kind, such as those of several processes.

    Its window begins with the earliest and ends with the latest.
    """
    found = list(profiles)
    sums: dict[Key, tuple[int, int]] = {}
    for profile in found:
        for key, ns, count in sums_of(profile):
            known = sums.get(key, (0, 0))
            sums[key] = known[0] + ns, known[1] + count
    began = min((p["began"] for p in found), default=0.0)
    ended = max((p["began"] + p["seconds"] for p in found), default=0.0)
    what = found[0]["what"] if found else ""
    dropped = sum(p["dropped"] for p in found)
    return make(what, began, ended - began, dropped, ((key, ns, n) for key, (ns, n) in sums.items()), limit)


def total_ns(profile: Profile) -> int:
    """Return the sum of a profile, in nanoseconds."""
    return sum(sample["ns"] for sample in profile["samples"])
