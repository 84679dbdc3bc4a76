"""A test fails when its loop was blocked for longer than it may, and says by what."""

import pytest

from obsloop.events import CAUSES

pytestmark = pytest.mark.once

BLOCK = """
    import asyncio, time, pytest

    async def handler():
        time.sleep(0.3)

    async def main():
        await asyncio.create_task(handler())
"""


def test_a_blocked_loop_fails_the_test_and_the_culprit_is_named(judge):
    """How long, how long it may be, which coroutine, where that is defined, why, and in which line it was seen."""
    result = judge(
        BLOCK
        + """
    @pytest.mark.obsloop(max_block=0.25)
    def test_it():
        asyncio.run(main())
    """
    )
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"obsloop: the loop was blocked for 0\.\d{3} s \(at most 0\.25 s are allowed\) by test_story\.handler "
            rf"\(test_story\.py:4\), cause: ({'|'.join(CAUSES)})$",
            "-+ Captured obsloop call -+",
            r"  seen after .* s",
            r"    test_story\.py:4 in handler",
            r"      time\.sleep\(0\.3\)",
            "FAILED test_story.py::test_it - .*obsloop: the loop was blocked.*",
        ]
    )


def test_waiting_is_not_blocking(judge):
    """A test may take as long as it likes while its loop is free; and a block may be shorter than the limit."""
    result = judge(
        BLOCK
        + """
    @pytest.mark.obsloop(max_block=2)
    def test_waits():
        asyncio.run(asyncio.sleep(2.1))

    @pytest.mark.obsloop(max_block=20.5)
    def test_blocks_shortly():
        asyncio.run(main())

    @pytest.mark.obsloop(max_block=0.01)
    def test_has_no_loop():
        time.sleep(0.1)

    def test_has_no_limit():
        asyncio.run(main())
    """
    )
    result.assert_outcomes(passed=4)


LEVELS = (
    BLOCK
    + """
    def test_option():
        asyncio.run(main())

    @pytest.mark.obsloop(max_block=20)
    def test_its_own():
        asyncio.run(main())

    @pytest.mark.obsloop(max_block=None)
    def test_switched_off():
        asyncio.run(main())

    @pytest.mark.obsloop(max_block=20)
    class TestClass:
        def test_of_the_class(self):
            asyncio.run(main())

        @pytest.mark.obsloop(max_block=0.1)
        def test_closest(self):
            asyncio.run(main())
"""
)


def test_the_closest_marker_wins_and_the_option_is_for_those_without(judge):
    """From the command line."""
    result = judge(LEVELS, "--obsloop-max-block=0.25", "-rA")
    result.assert_outcomes(failed=2, passed=3)
    result.stdout.fnmatch_lines_random(
        [
            "obsloop: a test fails when a loop is blocked for more than 0.25 s*",
            "FAILED test_story.py::test_option *",
            "FAILED test_story.py::TestClass::test_closest *",
            "*at most 0.1 s are allowed*",
        ]
    )


def test_a_modules_marker_wins_over_the_configuration_file(judge):
    """And loses to those of its classes and functions."""
    result = judge(LEVELS + "\n    pytestmark = pytest.mark.obsloop(max_block=0.2)", ini="obsloop_max_block = 20")
    result.assert_outcomes(failed=2, passed=3)
    result.stdout.fnmatch_lines(["*for more than 20 s*", "*at most 0.2 s are allowed*"])


def test_the_command_line_wins_over_the_configuration_file(judge):
    """Which may be overridden by an empty value, too."""
    text = BLOCK + "\n    def test_it():\n        asyncio.run(main())"
    judge(text, ini="obsloop_max_block = 0.25").assert_outcomes(failed=1)
    judge(text, "--obsloop-max-block=20", ini="obsloop_max_block = 0.25").assert_outcomes(passed=1)
    judge(text, "-o", "obsloop_max_block=", ini="obsloop_max_block = 0.25").assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["-1", "0", "soon", "nan", "inf", ""])
def test_a_bad_option_is_a_usage_error(pytester, value):
    """It says what is expected and what it got. No test is run, so this process can do it."""
    result = pytester.runpytest_inprocess(f"--obsloop-max-block={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"*--obsloop-max-block: expected a positive number of seconds, such as 0.05; got '{value}'*"]
    )


def test_a_bad_line_in_the_configuration_file_is_a_usage_error(judge):
    """It says in which file."""
    result = judge("def test_it(): pass", ini="obsloop_max_block = soon")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*obsloop_max_block in *tox.ini: expected a positive number of seconds*got 'soon'*"])


BAD = ["", "max_block=-1", "max_block=0", "max_block='1'", "max_block=True", "0.05", "max=1", "0.1, max_block=1"]


def test_bad_markers_stop_the_run(judge):
    """Before any test has run, with each test's name and what was expected: as pytest does with an unknown marker."""
    bad = "".join(f"@pytest.mark.obsloop({arguments})\ndef test_{n}(): pass\n" for n, arguments in enumerate(BAD))
    result = judge("import pytest\ndef test_first(): print('a test was run')\n" + bad, "-s")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting test_story.py*",
            *(
                f"test_story.py::test_{n}: bad marker obsloop({arguments}): expected obsloop(max_block=SECONDS), "
                "a positive number such as 0.05, or None"
                for n, arguments in enumerate(BAD)
            ),
        ]
    )
    assert "a test was run" not in result.stdout.str()


def test_a_bad_marker_of_a_class_is_told_for_each_test(judge):
    """Of an old one, too."""
    result = judge(
        """
        import pytest, unittest
        @pytest.mark.obsloop
        class TestOld(unittest.TestCase):
            def test_first(self): pass
            def test_second(self): pass
        """
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    names = ("test_first", "test_second")
    result.stdout.fnmatch_lines([f"test_story.py::TestOld::{name}: bad marker obsloop(): expected *" for name in names])


def test_a_bad_marker_that_comes_late_fails_its_test(judge):
    """A fixture has added it."""
    result = judge(
        """
        import pytest

        @pytest.fixture
        def strict(request):
            request.node.add_marker(pytest.mark.obsloop(max_block="soon"))

        def test_it(strict): pass
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_story.py::test_it: bad marker obsloop(max_block='soon'): expected *"])


def test_a_bad_variable_is_a_usage_error_too(judge, monkeypatch):
    """Otherwise no loop could be observed, and every test would pass."""
    monkeypatch.setenv("OBSLOOP_UNHEALTHY_AFTER", "soon")
    judge("def test_it(): pass").assert_outcomes(passed=1)
    result = judge("def test_it(): pass", "--obsloop-max-block=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: obsloop: variable OBSLOOP_UNHEALTHY_AFTER: 'soon' is not accepted; *"])


def test_ten_blocks_are_listed_and_the_rest_is_counted(judge):
    """The longest, in the order of time."""
    result = judge(
        """
        import asyncio, time, pytest

        @pytest.mark.obsloop(max_block=0.1)
        def test_it():
            async def main():
                for n in range(12):
                    time.sleep(0.4 if n == 11 else 0.12)
                    await asyncio.sleep(0)
            asyncio.run(main())
        """
    )
    result.assert_outcomes(failed=1)
    lines = [line for line in result.outlines if line.startswith("obsloop: ")]
    assert len(lines) == 11
    assert "at most 0.1 s are allowed" in lines[0]
    assert float(lines[9].split(" for ")[1].split()[0]) >= 0.4
    assert lines[10] == "obsloop: shorter blocks not listed: 2"


def test_a_test_that_fails_by_itself_keeps_its_failure(judge):
    """What blocked its loop is told in a section; it may be the reason."""
    result = judge(
        BLOCK
        + """
    import unittest

    @pytest.mark.obsloop(max_block=0.25)
    def test_it():
        asyncio.run(main())
        assert "the one" == "the other"

    @pytest.mark.obsloop(max_block=0.25)
    class TestOld(unittest.TestCase):
        def test_it(self):
            asyncio.run(main())
            self.assertEqual("the old one", "the other")

    @pytest.mark.obsloop(max_block=0.25)
    def test_skips():
        asyncio.run(main())
        pytest.skip("by itself")
    """
    )
    result.assert_outcomes(failed=2, skipped=1)
    text = result.stdout.str()
    assert text.count("Captured obsloop call") == 2
    assert text.count("obsloop: the loop was blocked for ") == 2
    result.stdout.fnmatch_lines_random(
        [
            "FAILED test_story.py::test_it - AssertionError: *",
            "FAILED test_story.py::TestOld::test_it - AssertionError: *",
        ]
    )


def test_marks_of_pytests_own_work_as_usual(judge):
    """Expected failures, parameters and classes, old ones among them."""
    result = judge(
        BLOCK
        + """
    import unittest

    pytestmark = pytest.mark.obsloop(max_block=0.25)

    @pytest.mark.xfail(reason="blocks", strict=True)
    def test_expected():
        asyncio.run(main())

    @pytest.mark.parametrize("seconds", [0, 0.3, pytest.param(0.31, marks=pytest.mark.obsloop(max_block=20))])
    def test_parameters(seconds):
        async def main():
            time.sleep(seconds)
        asyncio.run(main())

    class TestOld(unittest.IsolatedAsyncioTestCase):
        async def test_blocks(self):
            time.sleep(0.3)

        async def test_waits(self):
            await asyncio.sleep(0)
    """
    )
    result.assert_outcomes(xfailed=1, failed=2, passed=3)
    result.stdout.fnmatch_lines_random(
        ["FAILED test_story.py::test_parameters[[]0.3] - *", "FAILED test_story.py::TestOld::test_blocks - *"]
    )


def test_what_fixtures_do_is_not_the_tests(judge):
    """Neither before nor after; nor what another thread's loop had begun before."""
    result = judge(
        BLOCK
        + """
    import threading

    pytestmark = pytest.mark.obsloop(max_block=0.25)

    @pytest.fixture
    def slow():
        asyncio.run(main())
        yield
        asyncio.run(main())

    def test_it(slow):
        asyncio.run(asyncio.sleep(0))

    @pytest.fixture
    def thread():
        async def main():
            begun.set()
            time.sleep(0.6)
        begun = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        begun.wait()
        time.sleep(0.1)
        return thread

    def test_in_another_thread(thread):
        thread.join()
    """
    )
    result.assert_outcomes(passed=2)


def test_loops_of_other_threads_count(judge):
    """They are named after their thread."""
    result = judge(
        BLOCK
        + """
    import threading

    @pytest.mark.obsloop(max_block=0.25)
    def test_it():
        thread = threading.Thread(target=lambda: asyncio.run(main()), name="worker")
        thread.start()
        thread.join()
    """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["obsloop: the loop worker was blocked for 0.*"])


def test_a_marker_that_a_fixture_adds_counts(judge):
    """It comes late, for loops that were made before, and is judged as any other."""
    result = judge(
        BLOCK
        + """
    @pytest.fixture
    def strict(request):
        request.node.add_marker(pytest.mark.obsloop(max_block=0.25))

    def test_it(strict):
        asyncio.run(main())
    """
    )
    result.assert_outcomes(failed=1)


def test_time_that_a_test_makes_up_blocks_nobody(judge):
    """A step clock that is moved by an hour, within a callback."""
    result = judge(
        """
        import obsloop
        from obsloop.testing import StepClock

        def test_it():
            with StepClock() as clock:
                loop = obsloop.Loop(clock.selector())
                loop.call_soon(clock.advance, 3600)
                loop.call_later(3601, loop.stop)
                loop.run_forever()
                loop.close()
        """,
        "--obsloop-max-block=3",
    )
    result.assert_outcomes(passed=1)


def test_a_test_that_runs_pytest_has_a_limit_of_its_own(judge):
    """The inner run's limit ends with it, and the outer one goes on."""
    result = judge(
        """
        import asyncio, time, pytest

        @pytest.mark.obsloop(max_block=0.25)
        def test_outer(pytester):
            pytester.makepyfile("def test_inner(): pass")
            pytester.runpytest_inprocess("--obsloop-max-block=5").assert_outcomes(passed=1)
            async def main():
                time.sleep(0.3)
            asyncio.run(main())
        """,
        "-p",
        "pytester",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["obsloop: the loop was blocked for 0.3*at most 0.25 s*"])
