"""add_signal_handler and remove_signal_handler, with real signals to this very process."""

import asyncio
import functools
import os
import signal
import threading

import pytest

from .support import LIMIT, run, run_batch, run_forever


@pytest.fixture(autouse=True)
def signals_as_before():
    """Every test leaves the process's signal handling as it found it."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raise_signal(number):
    """Send a signal to this process."""
    os.kill(os.getpid(), number)


def test_delivers_with_arguments(loop):
    """The loop calls the callback with its arguments; keywords by functools.partial."""
    seen = []

    def callback(*args, **kwargs):
        seen.append((args, kwargs, asyncio.get_running_loop() is loop))
        loop.stop()

    callback_with_keyword = functools.partial(callback, 1, flush=True)
    assert loop.add_signal_handler(signal.SIGUSR1, callback_with_keyword, 2) is None
    loop.call_soon(raise_signal, signal.SIGUSR1)
    run_forever(loop)
    assert seen == [((1, 2), {"flush": True}, True)]


def test_wakes_a_sleeping_loop(loop):
    """A signal from outside ends the loop's sleep."""
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    # From another thread, so that the main thread may well be inside select().
    timer = threading.Timer(0.05, raise_signal, (signal.SIGUSR1,))
    timer.start()
    run_forever(loop)
    timer.join()


def test_signal_before_the_loop_runs_is_kept(loop):
    """A signal that comes while the loop is not running is handled once it runs."""
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("handled"), loop.stop()))
    raise_signal(signal.SIGUSR1)
    assert seen == []
    run_forever(loop)
    assert seen == ["handled"]


def test_several_signals_each_to_its_own(loop):
    """Each signal has a handler; a second one for the same signal replaces the first."""
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, pytest.fail, "replaced")
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    loop.add_signal_handler(signal.SIGUSR2, seen.append, 2)

    async def main():
        raise_signal(signal.SIGUSR1)
        raise_signal(signal.SIGUSR2)
        while len(seen) < 2:
            await asyncio.sleep(0)

    run(loop, main())
    assert sorted(seen) == [1, 2]


def test_sigint_instead_of_keyboardinterrupt(loop):
    """A handler for SIGINT takes the place of KeyboardInterrupt, which is back when it is removed."""
    seen = []
    loop.add_signal_handler(signal.SIGINT, lambda: (seen.append("handled"), loop.stop()))
    loop.call_soon(raise_signal, signal.SIGINT)
    run_forever(loop)
    assert seen == ["handled"]
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loop.call_soon(raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_forever(loop)


def test_remove_says_whether_there_was_one(loop):
    """True for a handler that was there, and the default action is back; False otherwise."""
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


@pytest.mark.parametrize("number", [0, -1, signal.NSIG, 100_000])
def test_invalid_numbers(loop, number):
    """A number that is no signal is a ValueError."""
    with pytest.raises(ValueError, match="invalid signal number"):
        loop.add_signal_handler(number, print)
    with pytest.raises(ValueError, match="invalid signal number"):
        loop.remove_signal_handler(number)


def test_a_name_is_no_number(loop):
    """The signal must be a number: TypeError for a name."""
    with pytest.raises(TypeError, match="sig must be an int"):
        loop.add_signal_handler("SIGUSR1", print)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_uncatchable_signals(loop, number):
    """What cannot be caught is a RuntimeError (the reference says ValueError), and nothing is changed."""
    with pytest.raises(RuntimeError, match=f"sig {int(number)} cannot be caught"):
        loop.add_signal_handler(number, print)
    assert loop.remove_signal_handler(number) is False
    assert signal.set_wakeup_fd(-1) == -1


def test_coroutines_are_refused(loop):
    """A coroutine function, or a coroutine, is a TypeError at once."""

    async def handler():
        pass

    coro = handler()
    for thing in (handler, coro):
        with pytest.raises(TypeError, match=r"coroutines cannot be used with add_signal_handler"):
            loop.add_signal_handler(signal.SIGUSR1, thing)
    coro.close()


def test_only_in_the_main_thread(loop):
    """Another thread cannot set a handler: RuntimeError."""
    errors = []

    def other_thread():
        with pytest.raises(RuntimeError) as caught:
            loop.add_signal_handler(signal.SIGUSR1, print)
        errors.append(caught.value)

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join(LIMIT)
    assert len(errors) == 1


def test_a_failing_handler_goes_to_the_exception_handler(loop):
    """An error in a signal's callback is no different from that of another callback."""
    contexts = []
    loop.set_exception_handler(lambda _loop, context: (contexts.append(context), loop.stop()))
    loop.add_signal_handler(signal.SIGUSR1, lambda: 1 / 0)
    loop.call_soon(raise_signal, signal.SIGUSR1)
    run_forever(loop)
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)
    assert isinstance(contexts[0]["handle"], asyncio.Handle)


def test_close_removes_the_handlers(loop):
    """A closed loop has given the signals back."""
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_a_closed_loop_takes_no_handler(loop):
    """As for every other method: the loop is closed."""
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_signal_handler(signal.SIGUSR1, print)


def test_sigint_without_a_handler_leaves_run_forever(loop):
    """Without a handler, Ctrl-C is KeyboardInterrupt out of run_forever, and the loop can run again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop.call_soon(raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_forever(loop)
    run_batch(loop)


def test_the_runner_turns_sigint_into_cancellation(loop_class):
    """asyncio.Runner's own SIGINT handling works on the loop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []

    async def main():
        asyncio.get_running_loop().call_soon(raise_signal, signal.SIGINT)
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with asyncio.Runner(loop_factory=loop_class) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert seen == ["cancelled"]
