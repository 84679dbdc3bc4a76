"""Write a profile for other tools: collapsed stacks (Brendan Gregg's format) and speedscope's JSON."""

from __future__ import annotations

import json
from pathlib import PurePath

from obsloop.profile.data import Profile, total_ns

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def collapsed(profile: Profile) -> bytes:
    """Return a line for each stack: its frames with ``;`` between them, outermost first, and microseconds."""
    names = [_line(str(function), str(file), int(line)) for function, file, line, _ in profile["frames"]]
    sums: dict[str, int] = {}
    for sample in profile["samples"]:
        stack = ";".join(names[i] for i in sample["stack"])
        sums[stack] = sums.get(stack, 0) + sample["ns"]
    lines = [f"{stack} {round(ns / 1e3)}\n" for stack, ns in sums.items()]
    return "".join(lines).encode("utf-8", "replace")


def speedscope(profile: Profile) -> bytes:
    """Return a file for https://www.speedscope.app, in nanoseconds."""
    shared = [
        {"name": function, "file": file, "line": line} if file else {"name": function}
        for function, file, line, _ in profile["frames"]
    ]
    found = {
        "$schema": _SCHEMA,
        "exporter": "obsloop",
        "name": f"{profile['what']}, {profile['seconds']:.0f} s",
        "activeProfileIndex": 0,
        "shared": {"frames": shared},
        "profiles": [
            {
                "type": "sampled",
                "name": profile["what"],
                "unit": "nanoseconds",
                "startValue": 0,
                "endValue": total_ns(profile),
                "samples": [sample["stack"] for sample in profile["samples"]],
                "weights": [sample["ns"] for sample in profile["samples"]],
            }
        ],
    }
    return json.dumps(found, ensure_ascii=True).encode() + b"\n"


def _line(function: str, file: str, line: int) -> str:
    where = f" ({PurePath(file).name}:{line})" if file else ""
    return "".join(c if c.isprintable() and c != ";" else "?" for c in f"{function}{where}")
