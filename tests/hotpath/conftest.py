"""Tests of the two cores. Each runs on this process's core; `test_compiled_core` runs all of them on the other one.

A test marked `compiled_only` states a fact of the compiled core. In a process of the pure core it is taken out when the
tests are collected, and the reason is printed; with TESTS_REQUIRE_COMPILED set its absence is a failure.
"""

import os

import pytest

import obsloop
from tests import selection

from .support import BUILT, ON_THE_OTHER

MARKERS = {
    "compiled_only": "a fact of the compiled core, tested in a process in which it is the core",
    "other_core": "runs the tests of this folder once more, on the core that is not this process's",
}


def reasons() -> dict[str, str]:
    """Which markers have no place in this process, and why."""
    why = {}
    if not BUILT:
        why = dict.fromkeys(MARKERS, "the compiled core was not built here")
    elif os.environ.get("OBSLOOP_PURE"):
        why["compiled_only"] = "OBSLOOP_PURE is set"
    if ON_THE_OTHER in os.environ:
        why["other_core"] = "this is the process on the other core"
    elif "TESTS_ON_EACH_CORE" in os.environ:
        why["other_core"] = "the other core has a run of its own"
    return {} if os.environ.get("TESTS_REQUIRE_COMPILED") and not BUILT else why


def pytest_configure(config) -> None:
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")


def pytest_collection_modifyitems(config, items) -> None:
    for marker, why in reasons().items():
        selection.take_out(config, items, [item for item in items if item.get_closest_marker(marker)], why)


@pytest.fixture(autouse=True)
def the_core_asked_for(cheap_collections) -> None:
    """This process has the core that its environment asks for."""
    if os.environ.get("OBSLOOP_PURE"):
        assert obsloop.core == "pure"
    elif os.environ.get("TESTS_REQUIRE_COMPILED"):
        assert obsloop.core == "compiled"
