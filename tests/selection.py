"""Which tests a run leaves out, which must share a process, and how the run says so, also under pytest-xdist."""

import pytest

_NOT_RUN = "obsloop_not_run"
_SAID: pytest.StashKey[list[str]] = pytest.StashKey()


def take_out(config, items, out, why: str) -> None:
    """Remove the tests `out` from `items`, and say so. Under pytest-xdist the first worker says it for all."""
    if not out:
        return
    gone = set(out)
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=out)
    files = ", ".join(sorted({item.path.name for item in out}))
    line = f"not run here, as {why}: {files} ({len(out)} tests)"
    if hasattr(config, "workeroutput"):
        if config.workerinput["workerid"] == "gw0":
            config.workeroutput[_NOT_RUN] = [*config.workeroutput.get(_NOT_RUN, ()), line]
    elif terminal := config.pluginmanager.get_plugin("terminalreporter"):
        terminal.write_line(f"\n{line}")


def on_the_stock_loop(item) -> bool:
    """Return whether the test is the half of one that runs on asyncio's own loop too."""
    return hasattr(item, "callspec") and item.callspec.params.get("loop_kind") == "stock"


def keep_together(items) -> None:
    """Give one worker all tests of a file that share what is made once for the file, such as a server."""
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs if hasattr(item, "_fixtureinfo") else {}
        if any(
            each.scope in {"module", "package", "class"} for definitions in fixtures.values() for each in definitions
        ):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


def pytest_collection_finish(session) -> None:
    """Refuse to run where pytest-xdist loses the groups: each test would make anew what its file shares."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") and item.nodeid.rfind("@") <= item.nodeid.rfind("]"):
            raise pytest.UsageError(
                f"pytest-xdist loses the groups of tests under pytest {pytest.__version__}: {item.nodeid} has none. "
                "Install the versions that pyproject.toml names: make test does it."
            )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Keep what a worker has not run, for the end of the run."""
    lines = getattr(node, "workeroutput", {}).get(_NOT_RUN, ())
    node.config.stash.setdefault(_SAID, []).extend(lines)


def not_run(config) -> list[str]:
    """Return what the workers have not run, a line for each reason."""
    return config.stash.get(_SAID, [])
