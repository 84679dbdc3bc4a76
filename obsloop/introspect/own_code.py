"""Tell the program's own code from libraries, and name the culprit of a block.

Own code is neither the standard library, nor installed, nor obsloop. Two settings, ``own_packages`` and
``foreign_packages``, name packages that count as own or as foreign. It runs no code of the program.
"""

from __future__ import annotations

import os
import sys
from os.path import dirname, sep
from pathlib import PurePath
from traceback import FrameSummary
from typing import Any, NamedTuple

from obsloop.base import asyncio_private
from obsloop.introspect import attributes
from obsloop.introspect.attributes import clean
from obsloop.introspect.functions import Site

OBSLOOP = dirname(dirname(asyncio_private.__file__)) + sep  # the folder of the package

_STANDARD = dirname(os.__file__) + sep
INSTALLED = (f"{sep}site-packages{sep}", f"{sep}dist-packages{sep}")
_OBSLOOPS = ("obsloop", "obsloop_exporters", "obsloop_pytest")


class Culprit(NamedTuple):
    """The line that blocked a loop: in the program's own code, if there was any."""

    function: str
    """Module and qualified name: ``shop.export``."""
    filename: str
    """The file; empty if it has no Python source."""
    lineno: int
    """The line that ran. Without a sample, the function's first line; 0 if it has no Python source."""
    seen: bool
    """Whether a sample saw it. If not, it is the callback's or the coroutine's own function."""

    def fields(self) -> dict[str, Any]:
        """Return the fields of an event that come from it."""
        return {
            "culprit_function": self.function,
            "culprit_filename": self.filename,
            "culprit_lineno": self.lineno,
            "culprit_seen": self.seen,
        }


class Frame(FrameSummary):
    """A frame of a sample: file, line and function, without locals."""

    __slots__ = ("function", "own")

    def __init__(self, filename: str, lineno: int, name: str, function: str = "", *, own: bool = False) -> None:
        super().__init__(filename, lineno, name, lookup_line=False)
        self.function = function
        """The function's name with its module and class: ``shop.orders.Cart.total``."""
        self.own = own
        """Whether it is the program's own code."""


def _names(packages: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in packages.split(",")) if packages else ()


class OwnCode:
    """The rule of one loop: which code is the program's own."""

    __slots__ = ("_foreign", "_own")

    def __init__(self, own_packages: str | None = None, foreign_packages: str | None = None) -> None:
        self._own = _names(own_packages)
        self._foreign = (*_names(foreign_packages), *_OBSLOOPS)

    def is_own(self, filename: str, module: str = "") -> bool:
        """Return whether code of this file and module is the program's own. An installed file tells its module."""
        module = module or _module_in(filename)
        if _is_in(module, self._own):
            return True
        return not _is_in(module, self._foreign) and not _is_library(_real(filename, module))

    def frame(self, code: Any, line: int | None, module: Any = None, name: str = "") -> Frame:
        """Return the frame of this code object at this line. ``module`` is the name that its globals have."""
        module = attributes.text(module)
        function = f"{module or PurePath(code.co_filename).stem}.{code.co_qualname}"
        own = self.is_own(code.co_filename, module)
        return Frame(code.co_filename, line or 0, name or code.co_name, clean(function), own=own)


DEFAULT = OwnCode()
"""The rule without settings."""


def culprit_of(innermost_first: list[Frame], callback: Site) -> Culprit:
    """Return who blocks the loop: the innermost own frame; without one, the innermost that is no standard library's.

    If there is neither, it is the callback itself, which may be a function of C.
    """
    found = next((frame for frame in innermost_first if frame.own), None)
    if found is None:
        others = (f for f in innermost_first if not is_standard(_real(f.filename, f.function.partition(".")[0])))
        found = next(others, None)
    if found is None:
        return Culprit(callback.name, callback.filename, callback.lineno, seen=True)
    return Culprit(found.function, found.filename, found.lineno or 0, seen=True)


def called_by(innermost_first: list[Frame], culprit: Culprit) -> str:
    """Return what the culprit's line called, and where that was: ``in zlib.compress at /usr/lib/x.py:12``.

    Return an empty string if the culprit's own line ran, or called a function of C.
    """
    inner: list[Frame] = []
    for frame in innermost_first:
        if frame.function == culprit.function and frame.lineno == culprit.lineno:
            break
        inner.append(frame)
    else:
        return ""
    if not inner:
        return ""
    via = f"in {inner[-1].function}, " if len(inner) > 1 else ""
    return clean(f"{via}at {inner[0].filename}:{inner[0].lineno} in {inner[0].function}")


def is_obsloops(filename: str) -> bool:
    """Return whether this is a file of the package obsloop."""
    return filename.startswith(OBSLOOP)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _module_in(filename: str) -> str:
    """Return the module that an installed file holds; an empty string for other files."""
    for part in INSTALLED:
        _, found, inside = filename.rpartition(part)
        if found:
            return ".".join(PurePath(inside).with_suffix("").parts)
    return ""


def _real(filename: str, module: str) -> str:
    """Return the module's file for code that was made from text, such as a dataclass's ``__init__``."""
    if filename.startswith("<") and not filename.startswith("<frozen "):
        found = attributes.text(attributes.get(sys.modules.get(module), "__file__"))
        return found or filename
    return filename


def _is_library(filename: str) -> bool:
    return is_standard(filename) or any(part in filename for part in INSTALLED)


def is_standard(filename: str) -> bool:
    """Return whether this is a file of the standard library or of obsloop."""
    if filename.startswith((OBSLOOP, "<frozen ")):
        return True
    return filename.startswith(_STANDARD) and not any(part in filename for part in INSTALLED)
