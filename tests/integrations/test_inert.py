"""pytest loads the plugin wherever obsloop is installed: where nobody asks for it, nothing is changed."""

import sys

import pytest

pytestmark = pytest.mark.once

LOOK = """
    import asyncio, sys, threading
    import pytest

    def changed():
        return "__new__" in vars(asyncio.SelectorEventLoop)

    def observed(*args):
        loop = asyncio.SelectorEventLoop(*args)
        loop.close()
        return hasattr(loop, "_obsloop")
"""


def test_without_option_and_marker_nothing_is_changed(judge):
    """No method of asyncio's, no thread, no callback of the garbage collector, no observed loop."""
    result = judge(
        LOOK
        + """
    import gc

    def test_it():
        assert "obsloop_pytest" in sys.modules
        assert not changed()
        assert not observed()
        assert threading.active_count() == 1
        assert not [callback for callback in gc.callbacks if "obsloop" in getattr(callback, "__module__", "")]

    @pytest.mark.obsloop(max_block=None)
    def test_with_a_marker_that_asks_for_nothing():
        assert not changed()
    """
    )
    result.assert_outcomes(passed=2)
    assert "obsloop: " not in result.stdout.str()


def test_without_option_and_marker_obsloop_is_not_even_loaded(judge):
    """A project that has nothing to do with obsloop pays for one small module, also in the workers of pytest-xdist."""
    text = """
    import sys

    def test_it():
        assert [name for name in sys.modules if name.startswith("obsloop")] == ["obsloop_pytest"]
    """
    judge(text).assert_outcomes(passed=1)
    judge(text, "-n", "1").assert_outcomes(passed=1)


def test_a_marker_that_is_not_selected_asks_for_nothing(judge):
    """Nor does one that is only listed."""
    text = (
        LOOK
        + """
    @pytest.mark.obsloop(max_block=1)
    def test_marked(): pass

    def test_it():
        assert not changed()
    """
    )
    judge(text, "-k", "test_it").assert_outcomes(passed=1, deselected=1)
    result = judge(text, "--collect-only", "--obsloop-max-block=1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*2 tests collected*"])


def test_a_marker_makes_loops_observed_from_the_first_test_on(judge):
    """A loop of an earlier test may be in use in the marked one."""
    judge(
        LOOK
        + """
    def test_first():
        assert observed()

    @pytest.mark.obsloop(max_block=1)
    def test_marked(): pass
    """
    ).assert_outcomes(passed=2)


def test_it_can_be_switched_off(judge):
    """As any plugin."""
    result = judge(LOOK + "\n    def test_it(): assert not changed()", "-p", "no:obsloop")
    result.assert_outcomes(passed=1)
    assert judge("def test_it(): pass", "-p", "no:obsloop", "--obsloop-max-block=1").ret == 4


def test_it_is_announced(judge):
    """To those who ask pytest which options and markers there are."""
    judge("", "--markers").stdout.fnmatch_lines(["@pytest.mark.obsloop(max_block=SECONDS): fail the test if *"])
    judge("", "--help").stdout.fnmatch_lines(["*--obsloop-max-block=SECONDS*", "*obsloop_max_block (string)*"])


def test_after_pytests_end_loops_are_plain_again(pytester):
    """For programs that call pytest.main: the stock class takes what it took, nothing, a selector or too much."""
    pytester.makepyfile(
        test_story="""
        import asyncio
        def test_it():
            loop = asyncio.SelectorEventLoop()
            loop.close()
            assert hasattr(loop, "_obsloop")
        """,
        program="""
        import asyncio, selectors
        import pytest

        class Mine(asyncio.SelectorEventLoop):
            def __init__(self, extra):
                super().__init__()

        for _ in range(2):
            assert pytest.main(["-q", "-p", "no:cacheprovider", "--obsloop-max-block=1"]) == 0
            for make in (
                asyncio.new_event_loop,
                asyncio.SelectorEventLoop,
                lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()),
                lambda: asyncio.SelectorEventLoop(selector=None),
                lambda: Mine("x"),
            ):
                loop = make()
                assert not hasattr(loop, "_obsloop")
                loop.close()
            with pytest.raises(TypeError):
                asyncio.SelectorEventLoop(1, 2, 3)
        print("plain")
        """,
    )
    result = pytester.run(sys.executable, "program.py")
    result.stdout.fnmatch_lines(["plain"])


def test_what_comes_with_it(pytester):
    """pytest has loaded the rest; of obsloop no server, no command, no exporter, and nothing of others'."""
    pytester.makepyfile(
        program="""
        import sys
        import pytest
        before = set(sys.modules)
        import obsloop.integrations.pytest_plugin
        new = {name for name in sys.modules if name not in before}
        print(sorted({name.partition(".")[0] for name in new} - sys.stdlib_module_names - {"obsloop"}))
        print([name for name in new if name.startswith(("obsloop.service.server", "obsloop.cli", "obsloop.testing"))])
        """
    )
    result = pytester.run(sys.executable, "program.py")
    modules, ours = result.outlines
    assert [name for name in eval(modules) if not name.startswith(("_cython", "cython", "_sysconfigdata"))] == []
    assert ours == "[]"
