"""A stack as it is told to a person: from the callback on, not too long, and with nothing kept alive."""

import asyncio
import gc
import json
import sys
import types
import weakref

import obsloop
from obsloop.introspect import frames, spans, stacks


def names(stack) -> list[str]:
    """The functions, outermost first."""
    return [frame.name for frame in stack.frames]


def test_a_stack_begins_with_the_callback():
    """Neither the loop's frames nor those around it are in it."""
    taken = []

    def inner() -> None:
        taken.append(stacks.take(frames.of_frame(sys._getframe())))

    def callback() -> None:
        inner()
        loop.stop()

    loop = obsloop.Loop()
    loop.call_soon(callback)
    loop.run_forever()
    loop.set_debug(True)
    loop.call_soon(callback)
    loop.run_forever()
    loop.close()
    for stack in taken:
        assert names(stack) == ["callback", "inner"]
        assert stack.outermost.name == f"{__name__}.{callback.__qualname__}"
        assert stack.outermost.lineno == callback.__code__.co_firstlineno
        assert all(frame.locals is None for frame in stack.frames)


def test_a_deep_stack_keeps_its_innermost_frames():
    """A recursion of 500: a hundred are kept, and it is said how many are not."""

    def deeper(n: int) -> stacks.Stack:
        return deeper(n - 1) if n else stacks.take(frames.of_frame(sys._getframe()))

    stack = deeper(500)
    assert len(stack.frames) == stacks.MAX_FRAMES + 1
    assert names(stack)[-1] == "deeper"
    assert names(stack)[0].endswith("frames left out)")
    assert names(stack)[0] in stacks.lines(stack.frames)


def test_the_place_is_in_the_programs_own_code():
    """A call into the standard library is told by who made it; with nothing else there, by itself."""
    taken = []
    json.loads("{}", object_hook=lambda found: taken.append(stacks.take(frames.of_frame(sys._getframe()))))
    here = test_the_place_is_in_the_programs_own_code
    assert f"at {here.__code__.co_filename}:" in stacks.where(taken[0].frames)
    library = tuple(frame for frame in taken[0].frames if "json" in frame.filename)
    assert library[-1].filename in stacks.where(library)
    assert stacks.where(()) == ""


def test_what_is_on_the_stack_is_not_kept():
    """Frames hold locals: of a taken stack only names and places are left."""

    class Thing:
        pass

    def callback() -> tuple[stacks.Stack, weakref.ref]:
        thing = Thing()
        return stacks.take(frames.of_frame(sys._getframe())), weakref.ref(thing)

    stack, thing = callback()
    gc.collect()
    assert names(stack)[-1] == "callback"
    assert thing() is None


def test_no_stack_at_all():
    """The thread is gone."""
    assert stacks.take(frames.of_frame(None)) == stacks.Stack((), None, False, [])


def test_the_span_comes_from_a_copy_of_the_context(monkeypatch):
    """With a stand-in for OpenTelemetry's API: the active span is found in a context that the loop's thread is in."""
    import contextvars

    active = contextvars.ContextVar("active", default=None)
    valid = types.SimpleNamespace(is_valid=True, trace_id=0xABC)
    span = types.SimpleNamespace(name="GET /", get_span_context=lambda: valid)
    api = types.ModuleType("opentelemetry.trace")
    api.get_current_span = active.get
    found = []

    class Handle:
        _context = contextvars.copy_context()

    def entered() -> None:
        active.set(span)
        found.append(spans.span(spans.context(Handle, None), [])[0])

    assert spans.span(spans.context(Handle, None), [])[0] == ""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
    assert spans.span(spans.context(Handle, None), [])[0] == ""  # none is active, and the stand-in's None is no span
    Handle._context.run(entered)
    assert found == [f"in span GET / trace {0xABC:032x}"]


def test_the_task_within_is_told_from_the_handles_own():
    """In a task's step there is no other; in a plain callback there is none."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        own = types.SimpleNamespace(_callback=types.SimpleNamespace(__self__=task))
        other = types.SimpleNamespace(_callback=print)
        assert stacks.inner_task(loop, own) is None
        assert stacks.inner_task(loop, other) is task

    obsloop.run(main())
    assert stacks.inner_task(asyncio.new_event_loop().close(), None) is None
