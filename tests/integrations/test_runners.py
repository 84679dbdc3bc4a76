"""However a test comes to its loop: by itself, or by one of the plugins that run asynchronous tests."""

import sys

import pytest

pytestmark = pytest.mark.once

WAYS = """
    import asyncio, time, pytest
    import obsloop

    def blocks(seconds=0.3):
        async def main():
            time.sleep(seconds)
        return main()

    def test_run():
        asyncio.run(blocks())

    def test_runner():
        with asyncio.Runner() as runner:
            runner.run(blocks())

    def test_runner_with_a_factory():
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(blocks())

    def test_new_event_loop():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(blocks())
        loop.close()

    def test_the_class():
        loop = asyncio.SelectorEventLoop()
        loop.call_soon(time.sleep, 0.3)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    def test_a_class_of_the_projects_own():
        class Mine(asyncio.SelectorEventLoop):
            pass
        loop = Mine()
        loop.run_until_complete(blocks())
        loop.close()

    def test_ours():
        obsloop.run(blocks())

    def test_in_debug_mode():
        asyncio.run(blocks(), debug=True)
"""


def test_each_way_to_a_loop_is_judged(judge_with_every_plugin):
    """And each of these tests blocks its loop."""
    judge_with_every_plugin(WAYS, "--obsloop-max-block=0.25").assert_outcomes(failed=8)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio_with_loops_of_every_scope(judge_with_every_plugin, mode):
    """Each second test blocks; their fixtures may."""
    pytest.importorskip("pytest_asyncio")
    text = """
    import asyncio, time, pytest, pytest_asyncio
    """
    mark = "" if mode == "auto" else "@pytest.mark.asyncio"
    fixture = "@pytest.fixture" if mode == "auto" else "@pytest_asyncio.fixture"
    text += f"""
    {fixture}
    async def slow():
        time.sleep(0.3)
        yield
        time.sleep(0.3)

    {mark}
    async def test_waits_function(slow):
        await asyncio.sleep(0)

    {mark}
    async def test_blocks_function(slow):
        time.sleep(0.3)
    """
    for scope in ("module", "session"):
        text += f"""
    @pytest.mark.asyncio(loop_scope="{scope}")
    async def test_waits_{scope}():
        await asyncio.sleep(0)

    @pytest.mark.asyncio(loop_scope="{scope}")
    async def test_blocks_{scope}():
        time.sleep(0.3)
    """
    result = judge_with_every_plugin(text, "--obsloop-max-block=0.25", f"--asyncio-mode={mode}")
    result.assert_outcomes(passed=3, failed=3)
    for scope in ("function", "module", "session"):
        result.stdout.fnmatch_lines_random(
            [
                f"obsloop: the loop was blocked for 0.* by test_story.test_blocks_{scope} (test_story.py:*",
                f"FAILED test_story.py::test_blocks_{scope} - *",
            ]
        )


def test_anyio_on_asyncio_is_judged_and_on_trio_is_not(judge_with_every_plugin):
    """trio has no asyncio loop: nothing is observed there and nothing fails."""
    result = judge_with_every_plugin(
        """
        import time, anyio, pytest

        pytestmark = [pytest.mark.anyio, pytest.mark.obsloop(max_block=0.25)]

        async def test_blocks():
            time.sleep(0.3)

        async def test_waits():
            await anyio.sleep(0)
        """,
        "-p",
        "no:asyncio",
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "obsloop: the loop was blocked for 0.* by test_story.test_blocks (test_story.py:6), cause: *",
            "FAILED test_story.py::test_blocks[[]asyncio] - *",
        ]
    )


def test_uvloop_stays_uvloop(judge_with_every_plugin):
    """A project that tests on uvloop still does; what happens there is not judged, and the header says so."""
    pytest.importorskip("uvloop", reason="uvloop has no wheel for this interpreter")
    result = judge_with_every_plugin(
        """
        import asyncio, time, pytest, uvloop

        async def main():
            time.sleep(0.3)
            return type(asyncio.get_running_loop())

        @pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.SelectorEventLoop])
        def test_it(factory):
            with asyncio.Runner(loop_factory=factory) as runner:
                kind = runner.run(main())
            assert issubclass(kind, uvloop.Loop if factory is uvloop.new_event_loop else asyncio.SelectorEventLoop)
        """,
        "--obsloop-max-block=0.25",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "obsloop: a test fails when a loop is blocked for more than 0.25 s (uvloop's loops are not observed)",
            "obsloop: the loop was blocked *",
            "FAILED test_story.py::test_it[[]*SelectorEventLoop] - *",
        ]
    )


def test_in_the_workers_of_xdist(judge_with_every_plugin):
    """Each worker judges its own tests, by option and by marker; a bad marker is told there too."""
    pytest.importorskip("xdist")
    text = """
    import asyncio, time, pytest

    async def main():
        time.sleep(0.3)

    def test_blocks():
        asyncio.run(main())

    @pytest.mark.obsloop(max_block=20)
    def test_may():
        asyncio.run(main())
    """
    result = judge_with_every_plugin(text, "--obsloop-max-block=0.25", "-n2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["obsloop: the loop was blocked for 0.*"])
    bad = (
        text
        + """
    @pytest.mark.obsloop
    def test_it(): pass
    """
    )
    result = judge_with_every_plugin(bad, "-n2")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["test_story.py::test_it: bad marker obsloop(): expected *"])


def test_under_obsloop_run_it_judges_as_well(judge_with_every_plugin, pytester):
    """There loops are observed already, and stay so after pytest's end."""
    pytester.makepyfile(
        test_story="""
        import asyncio, time
        async def main():
            time.sleep(0.3)
        def test_blocks():
            asyncio.run(main())
        """,
        program="""
        import asyncio, pytest, obsloop
        pytest.main(["-p", "no:cacheprovider", "--obsloop-max-block=0.25"])
        loop = asyncio.new_event_loop()
        print("observed", isinstance(loop, obsloop.Loop))
        loop.close()
        """,
    )
    result = pytester.run(
        sys.executable, "-m", "obsloop", "run", "--address", "127.0.0.1:0", sys.executable, "program.py"
    )
    result.stdout.fnmatch_lines(["obsloop: the loop was blocked for 0.*", "observed True"])
