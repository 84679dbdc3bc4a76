"""Where a blocked loop was seen comes from the watchdog's thread: perhaps late, perhaps never, and as many stacks."""

import pytest

pytestmark = pytest.mark.once

STORY = """
    import asyncio, threading, time, traceback, pytest
    import obsloop
    from obsloop.instruments import process

    SETTINGS = obsloop.Settings(watchdog=False)  # the test is the watchdog

    def tell(what, began, **more):
        hook = {"LoopBlocked": "on_loop_blocked", "LoopUnblocked": "on_loop_unblocked"}[what]
        event = getattr(obsloop.events, what)(
            loop_name="main", kind="callback", name="n", filename="", lineno=0, schedule_delay=0.0, started_at=began,
            duration=0.3, **more
        )
        process.emit(hook, event)

    def stack(*places):
        return tuple(traceback.FrameSummary(file, line, name) for file, line, name in places)

    @pytest.mark.obsloop(max_block=0.25)
    def test_it():
        async def main():
            began = time.time()
            time.sleep(0.3)
            watchdog(began)
        obsloop.run(main(), settings=SETTINGS)
"""


def test_it_is_waited_for(judge):
    """It comes after the test's end; of equal stacks one is shown, and the culprit leads."""
    result = judge(
        STORY
        + """
    def watchdog(began):
        own, library = (__file__, 5, "mine"), ("/usr/lib/library.py", 7, "theirs")
        both = stack(own, library)
        samples = ((0.1, both), (0.2, both), (0.25, stack(own)), (0.3, both))
        tell("LoopBlocked", began)
        more = {"samples": samples, "cause": "syscall", "culprit_function": "test_story.mine", "culprit_seen": True,
                "culprit_filename": __file__, "culprit_lineno": 5}
        threading.Timer(0.1, tell, ("LoopUnblocked", began), more).start()
    """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "obsloop: the loop was blocked for 0.* by test_story.mine (test_story.py:5), cause: *",
            "*Captured obsloop call*",
            "  seen after 0.100 s, 3 times:",
            "    test_story.py:5 in mine",
            "    /usr/lib/library.py:7 in theirs",
            "  seen after 0.250 s:",
            "    test_story.py:5 in mine",
        ]
    )


def test_it_is_not_waited_for_long(judge):
    """It never comes: the test fails all the same."""
    result = judge(STORY + '\n    def watchdog(began): tell("LoopBlocked", began)')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["obsloop: the loop was blocked for 0.*"])


def test_another_blocks_stack_is_not_shown(judge):
    """What was seen of the loop a minute ago says nothing about now."""
    result = judge(
        STORY
        + """
    def watchdog(began):
        tell("LoopUnblocked", began - 60, samples=((0.1, stack((__file__, 5, "mine"))),))
    """
    )
    result.assert_outcomes(failed=1)
    assert "test_story.py:5" not in result.stdout.str()


def test_many_short_callbacks_are_told_by_name(judge):
    """None of them is slow, all of them in one iteration are."""
    result = judge(
        """
        import asyncio, time, pytest

        def first():
            time.sleep(0.02)

        def second():
            time.sleep(0.01)

        @pytest.mark.obsloop(max_block=0.25)
        def test_it():
            async def main():
                for _ in range(10):
                    asyncio.get_running_loop().call_soon(first)
                    asyncio.get_running_loop().call_soon(second)
                await asyncio.sleep(0.01)
            asyncio.run(main())
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"obsloop: the loop was blocked for 0\.\d+ s \(at most 0\.25 s are allowed\) by test_story\.first .*",
            ".*Captured obsloop call.*",
            r"  0\.\d+ s in \d+ calls of test_story\.first",
            r"  0\.\d+ s in \d+ calls of test_story\.second",
        ]
    )
