"""obsloop's own errors: one line each at level ERROR or on stderr, and the traceback at DEBUG for who wants it."""

import logging

import pytest

from obsloop.base import log, stderr as say
from obsloop.base.guarded import guarded


def test_an_error_of_ours_is_one_line(caplog):
    """It names the place and the error, however many lines the error's text has; said once for each place."""

    def look():
        raise ValueError("first line\nsecond line")

    caplog.set_level(logging.DEBUG, "obsloop")
    guarded(look)
    guarded(look)
    shown = [record for record in caplog.records if record.levelno >= logging.WARNING]
    (line,) = [logging.Formatter().format(record) for record in shown]
    assert line.startswith("obsloop's own error in tests.base.test_one_line.")
    assert line.endswith(": ValueError: first line second line. The program goes on.")
    (detail,) = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert detail.exc_info


def test_an_error_in_the_service_is_one_line(capsys, caplog):
    """On stderr, where the program need not have set up logging."""
    caplog.set_level(logging.DEBUG, "obsloop")
    for _ in range(2):
        try:
            raise OSError("no\nthing")
        except OSError:
            say.say_error("test-one-line", "/path failed")
    assert capsys.readouterr().err == (
        "obsloop: /path failed: OSError: no thing. The traceback is logged at level DEBUG by the logger obsloop.\n"
    )
    (detail,) = caplog.records
    assert detail.exc_info


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """Nothing has been said yet in this process."""
    monkeypatch.setattr(log, "_logged", set())
