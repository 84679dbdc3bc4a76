"""Tests of the two cores. Each runs on the core of this process; `test_choice` runs all of them on the other one.

A test marked `compiled_only` states a fact of the compiled core. In a process of the pure core it is taken out when
the tests are collected, and the reason is printed; with OBSLOOP_REQUIRE_COMPILED set its absence is a failure.
"""

import os

import pytest

import obsloop

COMPILED_ONLY = "compiled_only: a fact of the compiled core, tested in a process in which it is the core"


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", COMPILED_ONLY)


def pytest_collection_modifyitems(config, items) -> None:
    if obsloop.core == "compiled" or os.environ.get("OBSLOOP_REQUIRE_COMPILED"):
        return
    out = [item for item in items if item.get_closest_marker("compiled_only")]
    if not out:
        return
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)
    why = "OBSLOOP_PURE is set" if os.environ.get("OBSLOOP_PURE") else "it was not built here"
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line(f"\n{len(out)} tests are only for the compiled core, which is not this process's: {why}")


@pytest.fixture(autouse=True)
def the_core_asked_for() -> None:
    """This process has the core that its environment asks for."""
    if os.environ.get("OBSLOOP_PURE"):
        assert obsloop.core == "pure"
    elif os.environ.get("OBSLOOP_REQUIRE_COMPILED"):
        assert obsloop.core == "compiled"
