"""Write a profile as pprof's protobuf, which Go's tools, Pyroscope, Parca and Grafana Alloy read.

The message and its field numbers are those of ``profile.proto`` in https://github.com/google/pprof. Only its own
few kinds of fields are written: numbers as varints, and strings and messages with their length before them.
"""

from __future__ import annotations

from collections.abc import Iterable

from obsloop.profile.data import Profile

_NUMBER, _BYTES = 0, 2
"""Wire types."""
_UNITS = {"blocked": "block", "waiting": "wait", "running": "wall"}
"""What the times of a profile are called."""


def encode(profile: Profile, period_ns: int = 0) -> bytes:
    """Return the profile as pprof, gzipped. ``period_ns``: the time between two samples, 0 if it varies."""
    strings: dict[str, int] = {"": 0}

    def text(value: str) -> int:
        return strings.setdefault(value.encode("utf-8", "replace").decode(), len(strings))

    unit = _UNITS.get(profile["what"], profile["what"])
    parts = [
        _message(1, _int(1, text("samples")), _int(2, text("count"))),
        _message(1, _int(1, text(unit)), _int(2, text("nanoseconds"))),
    ]
    for sample in profile["samples"]:
        labels = [_message(3, _int(1, text(key)), _int(2, text(value))) for key, value in sample["labels"].items()]
        stack = [number + 1 for number in reversed(sample["stack"])]  # the innermost first; ids begin with 1
        parts.append(_message(2, _ints(1, stack), _ints(2, (sample["count"], sample["ns"])), *labels))
    functions: dict[tuple[str, str], int] = {}
    for number, (name, file, line, _) in enumerate(profile["frames"], 1):
        function = functions.setdefault((str(name), str(file)), len(functions) + 1)
        parts.append(_message(4, _int(1, number), _message(4, _int(1, function), _int(2, int(line)))))
    for (name, file), number in functions.items():
        parts.append(_message(5, _int(1, number), _int(2, text(name)), _int(3, text(name)), _int(4, text(file))))
    parts += [
        _int(9, int(profile["began"] * 1e9)),
        _int(10, int(profile["seconds"] * 1e9)),
        _message(11, _int(1, text(unit)), _int(2, text("nanoseconds"))),
        _int(12, period_ns),
        _int(14, text(unit)),
    ]
    parts[:0] = [_bytes(6, value.encode()) for value in strings]  # last, since all the others add strings
    found = b"".join(parts)
    try:
        import gzip  # noqa: PLC0415  (an interpreter may be built without zlib)
    except ImportError:
        return found  # readers take it so, too
    return gzip.compress(found, compresslevel=1, mtime=0)


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all but the last have the eighth bit."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3 | _NUMBER) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _ints(field: int, values: Iterable[int]) -> bytes:
    return _bytes(field, b"".join(map(_varint, values)))


def _message(field: int, *parts: bytes) -> bytes:
    return _bytes(field, b"".join(parts))
