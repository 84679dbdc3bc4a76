"""Every way to a loop leads to an observed one, and no program's own idea of a loop is broken."""

import re
import sys
import textwrap

import pytest

from tests.cli.programs import run

FAKE_UVLOOP = '''
"""The public surface of uvloop, for interpreters that it has no wheel for."""
import asyncio
class _Native: pass
class Loop(_Native, asyncio.AbstractEventLoop):
    def __new__(cls, *args, **kwargs): return super().__new__(cls)
def new_event_loop(): return Loop()
def run(main, *, loop_factory=new_event_loop, debug=None, **kwargs):
    raise TypeError("uvloop.run() uses a non-uvloop event loop")
def __getattr__(name):
    if name not in ("install", "EventLoopPolicy"):
        raise AttributeError(name)
    class EventLoopPolicy(asyncio.AbstractEventLoopPolicy):
        def new_event_loop(self): return new_event_loop()
    def install(): asyncio.set_event_loop_policy(EventLoopPolicy())
    globals().update(install=install, EventLoopPolicy=EventLoopPolicy)
    return globals()[name]
'''


def program(tmp_path, text):
    """Run `text` under `obsloop run`; `tell(loop)` in it prints what the loop is and closes it."""
    prelude = """
        import asyncio, sys, warnings
        warnings.simplefilter("ignore")
        def tell(loop):
            import obsloop
            kind = "observed" if isinstance(loop, obsloop.Loop) else "stock"
            print(kind, isinstance(loop, asyncio.SelectorEventLoop), type(loop).__name__)
            loop.is_running() or loop.close()
        async def main():
            tell(asyncio.get_running_loop())
            return 42
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(prelude) + textwrap.dedent(text))
    return run("run", "--address", "127.0.0.1:0", path)


WAYS = {
    "run": "asyncio.run(main())",
    "runner": "with asyncio.Runner() as runner: runner.run(main())",
    "runner with a factory": """
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())
    """,
    "new_event_loop": "tell(asyncio.new_event_loop())",
    "the class": "tell(asyncio.SelectorEventLoop())",
    "the class with a selector": """
        import selectors
        tell(asyncio.SelectorEventLoop(selectors.SelectSelector()))
    """,
    "the class by keyword": "tell(asyncio.SelectorEventLoop(selector=None))",
    "the private class": "from asyncio.unix_events import _UnixSelectorEventLoop as C; tell(C())",
    "many of them": """
        for _ in range(200):
            asyncio.SelectorEventLoop().close()
        tell(asyncio.SelectorEventLoop())
    """,
    "the policy": "tell(asyncio.get_event_loop_policy().new_event_loop())",
    "a policy of the program's": """
        class Policy(asyncio.DefaultEventLoopPolicy): pass
        asyncio.set_event_loop_policy(Policy())
        asyncio.run(main())
    """,
    "a policy with a factory": """
        class Policy(asyncio.DefaultEventLoopPolicy): _loop_factory = asyncio.SelectorEventLoop
        asyncio.set_event_loop_policy(Policy())
        tell(asyncio.new_event_loop())
    """,
    "in a thread": """
        import threading
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
    """,
}
if sys.version_info >= (3, 12):
    WAYS["run with a factory"] = "asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop)"
if sys.version_info >= (3, 13):
    WAYS["EventLoop"] = "tell(asyncio.EventLoop())"


ALONE = {"run", "the class", "a policy of the program's", "a policy with a factory"}
"""Those that get a process of their own: they are the first of all, or change what the others are given."""


@pytest.mark.parametrize("way", sorted(ALONE))
def test_each_way_to_a_loop_is_observed(tmp_path, way):
    """And the loop is an instance of the stock class, as programs check."""
    result = program(tmp_path, WAYS[way])
    assert result.stdout == "observed True Loop\n", result.stderr
    assert result.stderr.count("\n") == 1  # where it is served
    assert result.returncode == 0


def test_every_other_way_to_a_loop_is_observed(tmp_path):
    """One after another, in one process: starting so many would take long."""
    ways = [way for way in WAYS if way not in ALONE]
    result = program(tmp_path, "\n".join(f"print({way!r})\n{textwrap.dedent(WAYS[way])}" for way in ways))
    assert result.stdout.splitlines() == [line for way in ways for line in (way, "observed True Loop")], result.stderr
    assert result.stderr.count("\n") == 1  # where it is served
    assert result.returncode == 0


def test_a_loop_class_of_the_programs_own_is_observed(tmp_path):
    """Its bases are what it thinks they are, its constructor gets what it was given, and it is observed."""
    result = program(
        tmp_path,
        """
        class Mixin:
            def __new__(cls, *args, **kwargs):
                self = super().__new__(cls)
                self.made = (args, kwargs)
                return self
        class Mine(asyncio.SelectorEventLoop, Mixin):
            def __init__(self, extra, selector=None):
                super().__init__(selector)
                self.extra = extra
        for _ in range(3):
            loop = Mine("x", selector=None)
            assert loop.extra == "x" and loop.made == (("x",), {"selector": None})
            assert loop.run_until_complete(asyncio.sleep(0, 7)) == 7
            tell(loop)
        """,
    )
    assert result.stdout == "observed True Mine\n" * 3, result.stderr
    assert result.stderr.count("\n") == 1  # where it is served


def test_a_loop_class_that_cannot_be_observed_keeps_working(tmp_path):
    """Here because its metaclass forbids to derive from it: it is not observed, and one line says so."""
    result = program(
        tmp_path,
        """
        class Final(type):
            def __new__(meta, name, bases, namespace):
                if any(isinstance(base, Final) for base in bases):
                    raise TypeError("not to be derived from")
                return super().__new__(meta, name, bases, namespace)
        class Mine(asyncio.SelectorEventLoop, metaclass=Final): pass
        tell(Mine())
        """,
    )
    assert result.stdout == "stock True Mine\n", result.stderr
    assert "__main__.Mine, a loop class of the program's own, is not observed: TypeError: not to be" in result.stderr


def test_a_subclass_of_ours_is_observed_without_a_word(tmp_path):
    """What that line advises."""
    result = program(tmp_path, "import obsloop\nclass Mine(obsloop.Loop): pass\ntell(Mine())")
    assert result.stdout == "observed True Mine\n", result.stderr
    assert "not observed" not in result.stderr


def test_the_stock_class_refuses_what_it_refused(tmp_path):
    """A wrong argument is a TypeError at the same place."""
    result = program(tmp_path, "try: asyncio.SelectorEventLoop(1, 2, 3)\nexcept TypeError as e: print('TypeError')")
    assert result.stdout == "TypeError\n", result.stderr


def test_the_loader_of_a_hooked_module_is_its_own(tmp_path):
    """Introspection, `inspect.getsource` and a look-up that does not import find what they would have found."""
    result = program(
        tmp_path,
        """
        import importlib.util, inspect
        from asyncio import unix_events
        print(type(unix_events.__loader__).__name__, type(unix_events.__spec__.loader).__name__)
        print("class _UnixSelectorEventLoop" in inspect.getsource(unix_events))
        print(importlib.util.find_spec("uvloop") is None or "uvloop" not in sys.modules)
        """,
    )
    assert result.stdout == "SourceFileLoader SourceFileLoader\nTrue\nTrue\n", result.stderr


UVLOOP_WAYS = {
    "new_event_loop": "import uvloop; tell(uvloop.new_event_loop())",
    "taken by name": """
        from uvloop import Loop, new_event_loop
        tell(Loop())
        new_event_loop().close()
    """,
    "run": "import uvloop; assert uvloop.run(main()) == 42",
    "run with a factory": "import uvloop; assert uvloop.run(main(), loop_factory=uvloop.Loop, debug=True) == 42",
    "install": "import uvloop; uvloop.install(); asyncio.run(main())",
    "policy": "import uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); tell(asyncio.new_event_loop())",
    "install and a subprocess": """
        import uvloop
        uvloop.install()
        async def spawn():
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print('child')")
            assert await process.wait() == 0
            await main()
        asyncio.run(spawn())
    """,
    "as a factory": """
        import uvloop
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    """,
}


@pytest.fixture(params=["real", "fake"])
def uvloop(request, tmp_path):
    """uvloop itself, where it is installed, and one of the same surface on every interpreter."""
    if request.param == "real":
        pytest.importorskip("uvloop", reason="uvloop has no wheel for this interpreter")
    else:
        (tmp_path / "uvloop.py").write_text(FAKE_UVLOOP)
    return request.param


@pytest.mark.parametrize("way", UVLOOP_WAYS)
def test_each_way_to_a_uvloop_loop_is_an_observed_loop(tmp_path, uvloop, way):
    """With one line that says so, once per process."""
    result = program(tmp_path, UVLOOP_WAYS[way])
    assert result.stdout.replace("child\n", "") == "observed True Loop\n", result.stderr
    assert result.returncode == 0
    assert len(re.findall("where the program asks for a uvloop loop, it gets", result.stderr)) == 1
    assert result.stderr.count("\n") == 2


def test_importing_uvloop_alone_says_nothing(tmp_path, uvloop):
    """Many programs import it to see whether it is there."""
    result = program(tmp_path, "import uvloop; asyncio.run(main())")
    assert result.stdout == "observed True Loop\n", result.stderr
    assert "uvloop" not in result.stderr


def test_a_subclass_of_uvloops_loop_stays_what_it_is(tmp_path, uvloop):
    """It runs, not observed, and one line says so."""
    result = program(tmp_path, "import uvloop\nclass Mine(uvloop.Loop): pass\nprint(type(Mine()).__name__)")
    assert result.stdout == "Mine\n", result.stderr
    assert "__main__.Mine derives from uvloop.Loop, which is observed only if uvloop is kept" in result.stderr


def test_uvicorn_that_would_pick_uvloop_gets_ours(tmp_path, uvloop):
    """Its default, `--loop auto`, takes uvloop where it can be imported."""
    pytest.importorskip("uvicorn")
    result = program(
        tmp_path,
        """
        import uvicorn
        async def app(scope, receive, send): pass
        config = uvicorn.Config(app)
        tell(config.get_loop_factory()())
        """,
    )
    assert result.stdout == "observed True Loop\n", result.stderr
    assert "where the program asks for a uvloop loop, it gets" in result.stderr
