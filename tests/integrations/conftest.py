"""Runs pytest on small test files, each in a process of its own: the plugin changes what loops are made there."""

import textwrap

import pytest

# Most of pytest's start is the load of these plugins, which only the tests of runners need.
OTHER_PLUGINS = ("-p", "no:anyio", "-p", "no:asyncio")


@pytest.fixture
def judge(judge_with_every_plugin):
    """The same function, for a pytest without the plugins for other runners."""

    def run(text, *options, **more):
        return judge_with_every_plugin(text, *OTHER_PLUGINS, *options, **more)

    return run


@pytest.fixture
def judge_with_every_plugin(pytester, monkeypatch):
    """A function: write `text` into test_story.py, run pytest with `options` on it, return what came of it.

    `ini` is the content of the section [pytest]. The plugin is found as any user's pytest finds it, by its entry point.
    """
    # Where CI is set pytest writes its summary in full, and with it each line of a message once more.
    for variable in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(variable, raising=False)
    quiet = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")

    def run(text, *options, ini="", name="test_story"):
        pytester.makeini("[pytest]\n" + textwrap.dedent(ini))
        pytester.makepyfile(**{name: textwrap.dedent(text)})
        return pytester.runpytest_subprocess(*quiet, *options)

    return run
