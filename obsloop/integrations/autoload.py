"""Make every plain asyncio loop of this process an observed one, from the interpreter's start, without a line of code.

The bootstrap folder's sitecustomize loads this by file, in every Python process under `obsloop run`. Most of these
never make a loop. So this imports next to nothing: not asyncio, and nothing of obsloop before the first loop is made.
If something fails, it prints one line, and the program runs as without obsloop.

**asyncio.** No name is replaced. The stock class gets a `__new__` that makes an `obsloop.Loop`, which derives from it.
So all ways to a loop lead there: policies, runners, `EventLoop`, a factory that was taken before. And
`isinstance(loop, asyncio.SelectorEventLoop)` holds for both kinds. From a program's own subclass it makes a loop of a
subclass of that, with the program's methods before obsloop's.

**uvloop.** A program that asks for a uvloop loop gets `obsloop.Loop`, and one line says so, if `obsloop run` has not
said it. With `OBSLOOP_UVLOOP=keep` it gets an observed uvloop loop, which is uvloop's own with fewer metrics.

`observe_asyncio` is the asyncio part alone, and can be undone: for the pytest plugin.
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
# The class of observed loops, or None if it cannot be used; empty before the first loop.
_observed: list[Any] = []
# How many callers have asked for observed loops and not undone it.
_asked = 0
# What a program gets that asks for a uvloop loop: `replace`, `keep`, or uvloop's own if this is empty.
_uvloop = ""
_MARK = "_obsloop_autoload"


def install(root: str | None = None, uvloop: str = "replace") -> None:
    """Observe every plain loop made from now on. Calling it again has no effect.

    `uvloop` is what becomes of uvloop's loops, unless OBSLOOP_UVLOOP says it.

    `root` is the folder that holds the package `obsloop`. It is used if the interpreter's own path does not have that
    package, and for that package alone, so that nothing else of one environment gets into another.
    """
    global _uvloop  # noqa: PLW0603
    if hasattr(sys, _MARK):
        return
    setattr(sys, _MARK, __file__)
    if root is not None:
        sys.meta_path.append(_LastResort(root))
    hooks: dict[str, Callable[[Any], None]] = {"asyncio.unix_events": _observe_asyncio}
    asked = os.environ.get("OBSLOOP_UVLOOP", "")
    _uvloop = asked if asked in ("keep", "replace") else uvloop
    if _uvloop:
        hooks["uvloop"] = _patch_uvloop
    for name in list(hooks):
        module = sys.modules.get(name)
        if module is not None:
            _run_hook(hooks.pop(name), module)
    if hooks:
        sys.meta_path.insert(0, _AfterImport(hooks))


def observe_new_loops(*, uvloop: str = "replace") -> Callable[[], None]:
    """Observe every plain loop that the program makes from now on, as under ``obsloop run``.

    Return a function that undoes it. This is for code that starts before the program, such as an instrumentation. The
    program need not ask for obsloop's loop: any way to ``asyncio.SelectorEventLoop`` or to a uvloop loop leads to it.
    ``uvloop`` says what the program gets instead of a uvloop loop, if ``OBSLOOP_UVLOOP`` does not: with ``replace``
    obsloop's loop, with ``keep`` an observed uvloop loop, and with an empty string uvloop's own, not observed. A bad
    ``OBSLOOP_*`` variable is logged, and its default is used. In a process that is observed from its start, this does
    nothing.
    """
    if hasattr(sys, _MARK):
        return lambda: None
    install(uvloop=uvloop)
    undone: list[bool] = []

    def undo() -> None:
        global _asked, _uvloop  # noqa: PLW0603
        if undone:
            return
        undone.append(True)
        delattr(sys, _MARK)
        waiting = [finder for finder in sys.meta_path if isinstance(finder, _AfterImport)]
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in waiting]
        if not any("asyncio.unix_events" in finder.hooks for finder in waiting):
            _asked -= 1
        _uvloop = ""

    return undo


def _say_once(line: str) -> None:
    """Print a line on stderr, once per process. A copy of `base/stderr.py`, which needs the package to be imported."""
    if line in _said:
        return
    _said.add(line)
    try:
        sys.stderr.write(f"obsloop: {line}\n")
        sys.stderr.flush()
    except Exception:  # noqa: S110  (stderr may be None, closed, or anything: there is no other way to report it)
        pass


# --- asyncio


def observe_asyncio() -> Callable[[], None]:
    """Observe every plain asyncio loop made from now on. Return a function that undoes it. uvloop stays as it is.

    Under `obsloop run`, where the process is observed from start to end, both do nothing.
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
    """Give the stock class a `__new__` that makes observed loops.

    It is never removed: a class that once had a `__new__` refuses arguments without it. After all callers have undone
    it, it does what the class would do.
    """
    global _asked  # noqa: PLW0603
    stock: Any = unix_events._UnixSelectorEventLoop
    _asked += 1

    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # A class that derives from obsloop.Loop makes an observed loop anyway; the package is loaded then.
        if _asked and not issubclass(cls, getattr(sys.modules.get("obsloop"), "Loop", ())):
            observed = _loop_class()
            if observed is not None and cls is not stock:
                observed = _own_class(cls)
            if observed is not None:
                # Not initialized here: type.__call__ does that, by the class of the object that it gets.
                return observed.__new__(observed, *args, **kwargs)
        # As the class would do without obsloop, including the __new__ of another base.
        make = _next_new(stock, cls)
        return make(cls) if make is object.__new__ else make(cls, *args, **kwargs)

    stock.__new__ = __new__


def _next_new(base: Any, cls: Any) -> Any:
    """Return the `__new__` that `cls` would find if `base` had none."""
    return super(base, cls).__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _own_class(cls: Any) -> Any:
    """Return the observed class of a program's own loop class; if there can be none, print one line and return None."""
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
    """Return obsloop.Loop, imported at the first loop; if it cannot be used, print one line and return None."""
    if not _observed:
        observed: Any = None
        try:
            from obsloop.loop.start import Loop  # noqa: PLC0415

            observed = Loop
        except Exception as error:
            _say_once(f"cannot observe {sys.executable}: {_brief(error)}. The program runs on, not observed.")
        _observed.append(observed)
    return _observed[0]


# --- uvloop


def _patch_uvloop(uvloop: Any) -> None:
    """Let every public way to a uvloop loop make an observed loop: asyncio's, or uvloop's if it is to be kept."""
    native: Any = uvloop.Loop
    if _uvloop == "replace":
        _replace_runner(uvloop)
        _replace_policy(uvloop)

    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if _uvloop == "keep" and not hasattr(cls, "_obsloop"):
            kept = _kept_class(cls)
            if kept is not None:
                return kept.__new__(kept, *args, **kwargs)
        elif _uvloop == "replace" and cls is native:
            observed = _loop_class()
            if observed is not None:
                if "uvloop" not in os.environ.get("OBSLOOP_RUN_WARNED", "").split(","):
                    _say_once(
                        "where the program asks for a uvloop loop, it gets obsloop.Loop, an observed asyncio loop, "
                        "which measures more. To keep uvloop: obsloop run --keep-uvloop, or OBSLOOP_UVLOOP=keep."
                    )
                # No instance of `cls`, so type.__call__ returns it as it is and initializes nothing.
                return observed()
        elif _uvloop == "replace":
            _say_once(
                f"{cls.__module__}.{cls.__qualname__} derives from uvloop.Loop, which is observed only if uvloop is "
                "kept: obsloop run --keep-uvloop, or OBSLOOP_UVLOOP=keep. The program runs on, not observed."
            )
        return _next_new(native, cls)(cls, *args, **kwargs)

    # new_event_loop(), and with it uvicorn, call the class.
    native.__new__ = __new__


def _kept_class(cls: Any) -> Any:
    """Return the observed class of uvloop's class or a subclass of it; if there is none, print a line, return None."""
    try:
        from obsloop.loop.kept_uvloop import observed_class  # noqa: PLC0415

        return observed_class(cls)
    except Exception as error:
        _say_once(f"cannot observe {cls.__module__}.{cls.__qualname__}: {_brief(error)}. The program runs on.")
        return None


def _replace_runner(uvloop: Any) -> None:
    """Replace uvloop.run, which checks that the loop is uvloop's."""

    def run(main: Any, *, loop_factory: Any = uvloop.new_event_loop, debug: bool | None = None, **kwargs: Any) -> Any:
        """Do what uvloop.run does, without its check that the loop is uvloop's."""
        import asyncio  # noqa: PLC0415  (uvloop has loaded it)

        async def wrapper() -> Any:
            return await main

        with asyncio.Runner(debug=debug, loop_factory=loop_factory, **kwargs) as runner:
            return runner.run(wrapper())

    uvloop.run = run


def _replace_policy(uvloop: Any) -> None:
    """Put asyncio's policy in the place of uvloop's.

    uvloop's has no child watcher, without which an asyncio loop cannot start subprocesses on Python 3.11 and 3.12.
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
        _say_once(f"cannot patch {module.__name__}: {_brief(error)}. The program runs on, not observed.")


class _AfterImport:
    """A finder, first on sys.meta_path, that lets the others find a module and calls a hook after it ran.

    It removes itself from the path after the last of its modules.
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
    """A loader that stands in front of a module's own until the module runs."""

    def __init__(self, inner: Any, finder: _AfterImport) -> None:
        self.inner = inner
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # First, so that the module's code sees its own loader.
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        module.__loader__ = self.inner
        self.inner.exec_module(module)
        self.finder.imported(module)


class _LastResort:
    """A finder, last on sys.meta_path, that finds only the package `obsloop`, in the folder of this file."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self.root], target) if name == "obsloop" else None


def remove_from_path(folder: str) -> None:
    """Remove the bootstrap folder from this process's sys.path. Its children find it by PYTHONPATH."""
    own = os.path.realpath(folder)
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != own]
