"""Write the compiled core's counters from the table in obsloop/metrics/counters.py.

    python tools/fields.py [--check]

It writes the lines between two marks in core.pxd, and fields.pxi. `--check` writes nothing, and fails if one of them is
not what would be written.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout without an installation

from obsloop.metrics.counters import FIELDS, STRIDE  # noqa: E402

COMPILED = ROOT / "obsloop" / "hotpath" / "compiled"
BEGIN = "    # The table of metrics/counters.py begins. `make fields` writes it.\n"
END = "    # The table ends.\n"
HEAD = """\
# What the table of metrics/counters.py asks of the compiled counters. `make fields` writes this file.

from obsloop.metrics.counters import Counted

if [(each.name, each.metadata.get("cells", 0)) for each in _counters.FIELDS] != {table}:
    raise ImportError("the compiled core was built from another table of counters; build it again")

cdef int reset_fields(Counters c) except -1:
{reset}
    return 0


cdef object copied_fields(Counters c):
    return Counted(
{copied}
    )
"""


def main() -> int:
    """Write the files, or say which are stale; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in files() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if check:
            print(f"stale: {path.relative_to(ROOT)}; run make fields", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def files() -> Iterator[tuple[Path, str]]:
    """Return each file, and the text that it should have."""
    declarations = COMPILED / "core.pxd"
    before, _, rest = declarations.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{declarations.relative_to(ROOT)}: the lines {BEGIN.strip()!r} and {END.strip()!r} are gone")
    table = [(each.name, each.metadata.get("cells", 0)) for each in FIELDS]
    # What each iteration writes is close together.
    declared = "".join(f"    cdef public int64_t {name}\n" for name, n in table if not n)
    declared += "".join(f"    cdef int64_t {name}[{n}]\n" for name, n in table if n)
    yield declarations, before + BEGIN + declared + END + after
    reset = [
        f"    memset(c.{name}, 0, sizeof(c.{name}))" if n else f"    c.{name} = 0"
        for (name, n), each in zip(table, FIELDS, strict=True)
        if each.metadata.get("reset", True)
    ]
    copied: list[str] = []
    for each in FIELDS:
        n = each.metadata.get("cells", 0)
        value = f"as_list(c.{each.name}, {n})" if n else f"c.{each.name}"
        if each.metadata.get("many_add"):
            value = f"c.blocks_as_list(c.{each.name}, {n // STRIDE})"
        copied.append(f"        {each.name}={value},")
    copied.append("        coroutines=c.coroutine_times(),")
    rows = "[\n" + "".join(f"    {row},\n" for row in table) + "]"
    text = HEAD.replace("{table}", rows).replace("{reset}", "\n".join(reset)).replace("{copied}", "\n".join(copied))
    yield COMPILED / "fields.pxi", text


if __name__ == "__main__":
    sys.exit(main())
