"""Profiles in other tools' formats: what those tools read is what was written."""

import gzip
import json
import os
import re
import subprocess

import pytest

from obsloop.profile import formats, pprof, windows
from obsloop.profile.data import NOT_SAMPLED
from tests.parts import needed
from tests.support import LIMIT

HOSTILE = 'a;b\n"\\c\u202e'


@pytest.fixture
def profile():
    """Two stacks with labels, one of them with odd names."""
    recent = windows.Recent("blocked")
    main = ("app.main", "/srv/app.py", 300, True)
    recent.add(
        5.0, (main, ("app.load", "/srv/app.py", 7, True)), (("cause", "cpu"), ("route", "/a/{b}")), 2_000_000_000, 3
    )
    recent.add(5.0, (main, NOT_SAMPLED), (("cause", "cpu"),), 40_000_000, 0)
    recent.add(5.0, (main, (HOSTILE, "", 0, False)), (), 60_000_000, 1)
    return recent.profile(60.0, 6.0, 1_700_000_000.0)


def test_collapsed(profile):
    """A line for each stack, in microseconds, whatever the names are."""
    assert formats.collapsed(profile).decode().splitlines() == [
        "app.main (app.py:300);app.load (app.py:7) 2000000",
        'app.main (app.py:300);a?b?"\\c? 60000',
        "app.main (app.py:300);(not sampled) 40000",
    ]


def test_speedscope(profile):
    """The fields that its published schema wants of a sampled profile."""
    found = json.loads(formats.speedscope(profile))
    assert found["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    [only] = found["profiles"]
    assert (only["type"], only["unit"], only["startValue"], only["endValue"]) == (
        "sampled",
        "nanoseconds",
        0,
        2_100_000_000,
    )
    assert len(only["samples"]) == len(only["weights"]) == 3
    names = [[found["shared"]["frames"][i]["name"] for i in stack] for stack in only["samples"]]
    assert names == [["app.main", "app.load"], ["app.main", HOSTILE], ["app.main", "(not sampled)"]]


def go(folder, *arguments):
    """What Go's own tool prints."""
    env = {**os.environ, "HOME": str(folder), "PPROF_TMPDIR": str(folder)}
    done = subprocess.run(
        [needed("pprof", "go-pprof"), *arguments], capture_output=True, text=True, timeout=LIMIT, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_go_reads_pprof(profile, tmp_path):
    """``go tool pprof`` checks the file and finds types, times, labels, functions, files and lines in it."""
    file = tmp_path / "profile.pb.gz"
    file.write_bytes(pprof.encode(profile, period_ns=10_000_000))
    raw = go(tmp_path, "-raw", str(file))
    assert "samples/count block/nanoseconds[dflt]" in raw
    assert "Period: 10000000" in raw
    assert "2023-11-14 22:" in raw  # when the window began
    assert re.search(r"^ +3 2000000000: 1 2 *\n +cause:\[cpu\] route:\[/a/{b}\]", raw, re.MULTILINE), raw
    assert re.search(r"^ +0 +40000000: 4 2 *\n", raw, re.MULTILINE), raw
    assert "1: 0x0 M=1 app.load /srv/app.py:7 s=0" in raw
    assert "2: 0x0 M=1 app.main /srv/app.py:300 s=0" in raw
    assert "4: 0x0 M=1 (not sampled) " in raw
    top = go(tmp_path, "-top", "-unit=ms", str(file))
    assert re.search(r"2000ms 95.24% .* app.load", top), top
    assert "2100ms total" in top


def test_pprof_takes_every_number(tmp_path):
    """Also those that need more than one group of seven bits, and an empty profile."""
    recent = windows.Recent("waiting")
    for n in (1, 127, 128, 300, 16_383, 16_384):
        recent.add(5.0, ((f"f{n}", "/srv/app.py", n, True),), (), n << 30, n)
    file = tmp_path / "profile.pb.gz"
    file.write_bytes(pprof.encode(recent.profile(60.0, 6.0, 1_700_000_000.0)))
    raw = go(tmp_path, "-raw", str(file))
    for n in (1, 127, 128, 300, 16_383, 16_384):
        assert re.search(rf"^ +{n} {n << 30}: ", raw, re.MULTILINE), raw
        assert f"f{n} /srv/app.py:{n} " in raw
    empty = windows.Recent("waiting").profile(60.0, 6.0, 1_700_000_000.0)
    assert gzip.decompress(pprof.encode(empty)).startswith(b"2\x00")  # the string table begins with an empty string
