"""BENCHMARKS.md has a table for each interpreter: a new one finds its place, and reasons stay."""

from tests.bench import table

PAGE = """# Benchmarks

## Against the stock loop

How it was measured.

### CPython 3.11

| work (one operation) | stock µs | compiled | goal | reason |
|---|---|---|---|---|
| timers | 1.00 | 0.50 | 0.40 | the kernel |

### CPython 3.14

| work (one operation) | stock µs | compiled | goal | reason |
|---|---|---|---|---|
| timers | 1.00 | 0.60 | 0.40 | |

## A real request

| parser | stock |
|---|---|
| h11 | 1 |
"""
ROW = {"timers": {"stock_ns": 1500, "compiled": {"ratio": 0.45}, "goals": {"compiled": 0.42}}}


def headings(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("##")]


def test_a_table_is_replaced_and_its_reason_stays():
    """Only that of this interpreter."""
    page = table.write(ROW, PAGE, "### CPython 3.11")
    assert headings(page) == headings(PAGE)
    assert "| timers | 1.50 | 0.45 | 0.42 |  |  |  |  | the kernel |" in page
    assert "| timers | 1.00 | 0.60 |" in page


def test_a_new_table_stands_between_the_older_and_the_newer_interpreter():
    """Or at the end of the tables."""
    first, *others, last = headings(PAGE)
    for version, place in (("3.10", 0), ("3.13", 1), ("3.15", 2)):
        heading = f"### CPython {version}"
        page = table.write(ROW, PAGE, heading)
        assert headings(page) == [first, *others[:place], heading, *others[place:], last]
        assert page.count("| timers |") == 3


def test_only_rows_that_became_worse_are_said():
    """By more than the tolerance."""
    rows = {"timers": {"compiled": 0.40}}
    assert table.worse(ROW, rows, 1.2) == []
    assert table.worse(ROW, rows, 1.1) == ["timers (compiled): 0.45, in the table 0.40"]


def test_the_projects_tables_can_be_read(monkeypatch):
    """For each interpreter that the page names, and none for another."""
    page = table.PAGE.read_text(encoding="utf-8")
    versions = [line for line in page.splitlines() if line.startswith("### CPython")]
    assert versions
    for heading in versions:
        monkeypatch.setattr(table, "OWN", heading)
        ratios = table.committed()
        assert table.ratios_of("call_soon chain", ratios)["compiled"] > 0
    monkeypatch.setattr(table, "OWN", "### CPython 2.7")
    assert table.committed() == {}
