"""What stands in the cells of a terminal's table."""

from obsloop.service.text import width
from obsloop.top import cells
from obsloop.top.cells import Column, Row, Table


def test_numbers_are_short_and_have_a_unit():
    """Also the very small and the very large ones."""
    assert [cells.duration(value) for value in (None, 0.0, 5e-8, 0.0123, 3.0, 700.0)] == [
        "-", "0 ms", "<0.1 ms", "12.3 ms", "3.00 s", "12 min",
    ]  # fmt: skip
    assert [cells.share(value) for value in (None, 0.0, 0.034, 0.5, 1.0)] == ["-", "0.0 %", "3.4 %", "50 %", "100 %"]
    assert [cells.count(value) for value in (None, 0, 99_999, 123_456, 12_345_678)] == [
        "-",
        "0",
        "99999",
        "123k",
        "12M",
    ]
    assert [cells.age(value) for value in (0.5, 12, 200, 8_000, 200_000)] == ["0.5 s", "12 s", "3 min", "2 h", "2 d"]


def test_a_table_fits_into_any_width():
    """The columns with a share give way, and of a place the end stays."""
    columns = (Column("N", right=True), Column("WHERE", share=1, end=True), Column("WHO", share=1))
    table = Table(columns, [Row((1,), ("7", "shop/orders/views.py:31", "shop.orders.views.export"))])
    for room in (30, 40, 60, 100):
        assert all(width(line) <= room for line in cells.lines(table, room))
    assert "views.py:31" in cells.lines(table, 40)[1]
