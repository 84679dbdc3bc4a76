"""Register the pytest plugin: the option, the marker, and hooks that load obsloop when one of the two is used.

pytest loads this module in every project of an environment in which obsloop is installed, so it imports nothing of
obsloop. For that reason it is outside of the package: a module inside would load the package.
``obsloop.integrations.pytest_plugin`` judges the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from obsloop.integrations.pytest_plugin import Session

_OPTION = "--obsloop-max-block"
_INI = "obsloop_max_block"
_MARKER = "obsloop(max_block=SECONDS)"

_limit = pytest.StashKey["float | None"]()
"""The limit of tests without a marker, in seconds."""
_session = pytest.StashKey["Session"]()
"""The object that judges tests, once it is loaded."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the command line and for the configuration file."""
    text = "fail each test during whose call an asyncio loop is blocked for longer than this"
    group = parser.getgroup("obsloop", "obsloop: blocked event loops")
    group.addoption(_OPTION, type=_seconds, default=None, metavar="SECONDS", help=text)
    parser.addini(_INI, f"{text}; in seconds, empty: no limit", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker. If every test has a limit, observe loops from here on."""
    config.addinivalue_line(
        "markers", f"{_MARKER}: fail the test if an asyncio loop is blocked for longer; None: no limit"
    )
    limit: float | None = config.getoption(_OPTION)
    if limit is None and (line := str(config.getini(_INI)).strip()):
        try:
            limit = _seconds(line)
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"{_INI} in {config.inipath or 'the configuration'}: {error}") from None
    config.stash[_limit] = limit
    if limit is not None:
        _load(config).observe()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Make plain loops again."""
    if _session in config.stash:
        config.stash[_session].undo()


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return a line for pytest's header if every test has a limit, which may be set in a distant file."""
    limit = config.stash[_limit]
    if limit is None:
        return None
    but = " (uvloop's loops are not observed)" if importlib.util.find_spec("uvloop") else ""
    return f"obsloop: a test fails when a loop is blocked for more than {limit:g} s{but}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Report bad markers before a test runs, as pytest does: the collection of the file with the marker fails.

    Not by a ``UsageError``, which the workers of pytest-xdist would lose.
    """
    report = yield
    if report.passed:
        items = [item for item in report.result if isinstance(item, pytest.Item)]
        session = _session_of(collector.config, items)
        complaints = session.complaints(items) if session is not None else []
        if complaints:
            report.outcome, report.longrepr, report.result = "failed", "\n".join(complaints), []
    return report


@pytest.hookimpl(trylast=True)  # after other plugins have deselected tests
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """If a marker has a limit, observe loops from here on."""
    markers = (item.get_closest_marker("obsloop") for item in items)
    if any(marker is not None and marker.kwargs.get("max_block") is not None for marker in markers):
        _load(config).observe()


@pytest.hookimpl(wrapper=True, trylast=True)  # the innermost: other plugins' work around a test does not count
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that is over its limit."""
    session = _session_of(item.config, (item,))
    if session is None:
        return (yield)
    return (yield from session.call(item))


def _session_of(config: pytest.Config, items: Iterable[pytest.Item]) -> Session | None:
    """Return the session that judges tests; None while neither the option nor a marker (also of ``items``) is used."""
    if _session in config.stash or any(item.get_closest_marker("obsloop") is not None for item in items):
        return _load(config)
    return None


def _load(config: pytest.Config) -> Session:
    if _session not in config.stash:
        from obsloop.integrations.pytest_plugin import Session  # noqa: PLC0415 - only if it is used

        config.stash[_session] = Session(config.stash[_limit])
    return config.stash[_session]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, such as 0.05; got {text!r}")
    return seconds
