"""Zero-code start: makes every plain asyncio loop of this process an observed one, from the interpreter's
start.

It is loaded by file from the bootstrap folder's sitecustomize, in every Python process under `obsloop run`,
most of which never make a loop. So it imports next to nothing: not asyncio, and of obsloop nothing before the
first loop is made. What goes wrong is told in one line, and the program runs on as it would have run.

**asyncio.** No name is replaced. The stock class gets a `__new__` that makes an `obsloop.Loop`, which derives
from it, when that class is called. So every way to a loop is caught, policies, runners, `EventLoop`, a factory
that was taken before, and `isinstance(loop, asyncio.SelectorEventLoop)` holds for both kinds. For a program's own
subclass it makes one of a subclass of that, with the program's methods before ours.

**uvloop** is not observed yet: a program that asks for a uvloop loop gets `obsloop.Loop` and one line that
says so.

`observe_asyncio` is for those who want the asyncio part alone, and for a while: the pytest plugin.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # typing's own constant would cost its import, in every Python process of the program
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_said: set[str] = set()
# The class that observed loops are made of, or None where it cannot be had; empty before the first loop.
_observed: list[Any] = []
# How many asked for observed loops and have not taken it back.
_asked = 0
# Whether who asks for a uvloop loop gets ours.
_instead_of_uvloop = False
_MARK = "_obsloop_autoload"


def install(root: str | None = None) -> None:
    """Observe every plain loop made from now on. Twice is harmless.

    `root` is the folder that holds the package `obsloop`: it is used where the interpreter's own path has
    none, for that package alone, so that nothing else of one environment gets into another.
    """
    if hasattr(sys, _MARK):
        return
    setattr(sys, _MARK, __file__)
    if root is not None:
        sys.meta_path.append(_LastResort(root))
    hooks = {"asyncio.unix_events": _observe_asyncio, "uvloop": _replace_uvloop}
    for name in list(hooks):
        module = sys.modules.get(name)
        if module is not None:
            _run_hook(hooks.pop(name), module)
    if hooks:
        sys.meta_path.insert(0, _AfterImport(hooks))


def observe_new_loops() -> Callable[[], None]:
    """Observe every plain loop that the program makes from now on, as under ``obsloop run``, until what is returned is
    called: for code that starts before the program, as instrumentations do.

    The program need not ask for obsloop's loop: any way to ``asyncio.SelectorEventLoop`` leads to it, and so does
    asking for a uvloop loop. After a bad ``OBSLOOP_*`` variable one line on stderr says so, and nothing is observed.
    Where the process is observed from its start, this does nothing.
    """
    if hasattr(sys, _MARK):
        return lambda: None
    install()
    undone: list[bool] = []

    def undo() -> None:
        global _asked, _instead_of_uvloop  # noqa: PLW0603
        if undone:
            return
        undone.append(True)
        delattr(sys, _MARK)
        waiting = [finder for finder in sys.meta_path if isinstance(finder, _AfterImport)]
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in waiting]
        if not any("asyncio.unix_events" in finder.hooks for finder in waiting):
            _asked -= 1
        _instead_of_uvloop = False

    return undo


def _say_once(line: str) -> None:
    """One line on stderr, once per process. A copy of `service/say.py`, which cannot be had without the
    package.
    """
    if line in _said:
        return
    _said.add(line)
    try:
        sys.stderr.write(f"obsloop: {line}\n")
        sys.stderr.flush()
    except Exception:  # noqa: S110  (stderr may be None, closed, or anything: there is nobody left to tell)
        pass


# --- asyncio


def observe_asyncio() -> Callable[[], None]:
    """Observe every plain asyncio loop made from now on until what is returned is called. uvloop stays as it is.

    Under `obsloop run`, whose process is observed from its start to its end, both do nothing.
    """
    if hasattr(sys, _MARK):
        return lambda: None
    from asyncio import unix_events  # noqa: PLC0415

    _observe_asyncio(unix_events)
    asked = [True]

    def undo() -> None:
        global _asked  # noqa: PLW0603
        if asked:
            asked.clear()
            _asked -= 1

    return undo


def _observe_asyncio(unix_events: Any) -> None:
    """Give the stock class a `__new__` that makes an observed loop where exactly that class is called.

    It is never taken away again: a class that once had a `__new__` refuses arguments when it has none. Where
    nobody asks any more it does what the class would do.
    """
    global _asked  # noqa: PLW0603
    stock: Any = unix_events._UnixSelectorEventLoop
    _asked += 1

    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # A class that derives from obsloop.Loop has loaded the package: no need to do so here.
        if _asked and not issubclass(cls, getattr(sys.modules.get("obsloop"), "Loop", ())):
            observed = _loop_class()
            if observed is not None and cls is not stock:
                observed = _own_class(cls)
            if observed is not None:
                # Not initialized here: type.__call__ does that, by the class of what it gets.
                return observed.__new__(observed, *args, **kwargs)
        # What the class would have done without us, another base's __new__ included.
        make = _next_new(stock, cls)
        return make(cls) if make is object.__new__ else make(cls, *args, **kwargs)

    stock.__new__ = __new__


def _next_new(base: Any, cls: Any) -> Any:
    """The `__new__` that `cls` would find if `base` had none."""
    return super(base, cls).__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _own_class(cls: Any) -> Any:
    """The observed kind of a loop class of the program's own; None, and one line, where there can be none."""
    try:
        from obsloop.loop.start import observed_class  # noqa: PLC0415

        return observed_class(cls)
    except Exception as error:
        _say_once(
            f"{cls.__module__}.{cls.__qualname__}, a loop class of the program's own, is not observed: "
            f"{_brief(error)}. Derive it from obsloop.Loop to observe it."
        )
        return None


def _loop_class() -> Any:
    """obsloop.Loop, imported at the first loop; None, and one line, where it cannot be had or set up."""
    if not _observed:
        observed: Any = None
        try:
            from obsloop.base.settings import Settings  # noqa: PLC0415
            from obsloop.loop.start import Loop  # noqa: PLC0415

            # A bad variable must not raise out of the program's own call that makes a loop.
            Settings.from_env()
            observed = Loop
        except Exception as error:
            _say_once(f"cannot observe {sys.executable}: {_brief(error)}. The program runs on, not observed.")
        _observed.append(observed)
    return _observed[0]


# --- uvloop


def _replace_uvloop(uvloop: Any) -> None:
    """Make every public way to a uvloop loop lead to an observed asyncio loop."""
    global _instead_of_uvloop  # noqa: PLW0603
    native: Any = uvloop.Loop
    _instead_of_uvloop = True

    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not _instead_of_uvloop:
            pass
        elif cls is native:
            observed = _loop_class()
            if observed is not None:
                _say_once(
                    "uvloop cannot be observed yet: where the program asks for a uvloop loop it gets "
                    "obsloop.Loop, an observed asyncio loop. Not observed, it gets uvloop as before."
                )
                # No instance of `cls`: so type.__call__ hands it out as it is and initializes nothing.
                return observed()
        else:
            _say_once(
                f"{cls.__module__}.{cls.__qualname__} derives from uvloop.Loop, which cannot be observed "
                "yet. The program runs on, not observed."
            )
        return _next_new(native, cls)(cls, *args, **kwargs)

    # new_event_loop(), and with it uvicorn, call the class.
    native.__new__ = __new__

    def run(main: Any, *, loop_factory: Any = uvloop.new_event_loop, debug: bool | None = None, **kwargs: Any) -> Any:
        """uvloop.run without its check that the loop is uvloop's."""
        import asyncio  # noqa: PLC0415  (uvloop has loaded it)

        async def wrapper() -> Any:
            return await main

        with asyncio.Runner(debug=debug, loop_factory=loop_factory, **kwargs) as runner:
            return runner.run(wrapper())

    uvloop.run = run
    _replace_policy(uvloop)


def _replace_policy(uvloop: Any) -> None:
    """asyncio's own policy in the place of uvloop's, which has no child watcher, so that on Python 3.11 and
    3.12 an asyncio loop could start no subprocess under it.
    """
    unix_events: Any = sys.modules["asyncio.unix_events"]
    base: Any = getattr(unix_events, "_DefaultEventLoopPolicy", None) or unix_events.DefaultEventLoopPolicy

    class EventLoopPolicy(base):  # type: ignore[misc, unused-ignore]
        """asyncio's policy under uvloop's name: its loops are what `uvloop.new_event_loop` makes now."""

        _loop_factory = staticmethod(uvloop.new_event_loop)

    def install() -> None:
        asyncio: Any = sys.modules["asyncio"]
        asyncio.set_event_loop_policy(EventLoopPolicy())

    uvloop.EventLoopPolicy = EventLoopPolicy
    uvloop.install = install


# --- imports


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _run_hook(hook: Callable[[Any], None], module: ModuleType) -> None:
    try:
        hook(module)
    except Exception as error:
        _say_once(f"cannot take its place in {module.__name__}: {_brief(error)}. The program runs on, not observed.")


class _AfterImport:
    """A finder, first on sys.meta_path, that lets the others find a module and calls a hook when it has been
    run. It takes itself off the path after the last of its modules.
    """

    def __init__(self, hooks: dict[str, Callable[[Any], None]]) -> None:
        self.hooks = hooks

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.hooks:
            return None
        for finder in list(sys.meta_path):
            find: Any = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None

    def imported(self, module: ModuleType) -> None:
        hook = self.hooks.pop(module.__name__, None)
        if not self.hooks and self in sys.meta_path:
            sys.meta_path.remove(self)
        if hook is not None:
            _run_hook(hook, module)


class _Loader:
    """Stands before a module's loader while the module is run, and is gone from it afterwards."""

    def __init__(self, inner: Any, finder: _AfterImport) -> None:
        self.inner = inner
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # First, so that the module's own code sees the loader that it would have seen.
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        module.__loader__ = self.inner
        self.inner.exec_module(module)
        self.finder.imported(module)


class _LastResort:
    """A finder, last on sys.meta_path: the package `obsloop` from the folder that this file is in, and
    nothing else.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self.root], target) if name == "obsloop" else None


def remove_from_path(folder: str) -> None:
    """Take the bootstrap folder off this process's sys.path. Its children find it by PYTHONPATH, the program
    need not.
    """
    own = os.path.realpath(folder)
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != own]
