"""The ``async with`` blocks that a waiting coroutine is in: the locks that it holds, its task groups, its time-outs.

Python keeps each block's ``__aexit__`` on the stack of the coroutine's frame. The garbage collector's
``gc.get_referents`` shows that stack. Up to Python 3.13 it has a bound method, since 3.14 a function and after it the
object. A coroutine that runs now shows nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import _AsyncGeneratorContextManager
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from obsloop.introspect.attributes import class_of, get, is_a, mro_of, vars_of

_EXIT = "__aexit__"
_DEEPEST = 5
_GENERATED: Any = _AsyncGeneratorContextManager


def referents(coro: Any) -> list[Any]:
    """Return what the frame of a coroutine or generator refers to: its locals in their order, then its stack."""
    return gc.get_referents(coro)


def entered(coro: Any, held: list[Any], seen: set[int], depth: int = 0) -> Iterator[Any]:
    """Yield the objects of the ``async with`` blocks that ``coro`` is in or about to enter, outermost first.

    ``held`` are its ``referents``. For a context manager made from a generator function, also yield what that generator
    is in. ``seen`` has the ids of the coroutines that need no reading any more.
    """
    for i, obj in enumerate(held):
        kind = class_of(obj)
        owner: Any = None
        if kind is MethodType or kind is BuiltinMethodType:
            if obj.__name__ == _EXIT:
                owner = obj.__self__
        elif kind is FunctionType and obj.__name__ == _EXIT and i + 1 < len(held) and _has(held[i + 1], obj):
            owner = held[i + 1]
        if owner is None:
            continue
        if is_a(owner, _GENERATED):
            generator = get(owner, "gen")
            if generator is not None and id(generator) not in seen and depth < _DEEPEST:
                seen.add(id(generator))
                yield from entered(generator, referents(generator), seen, depth + 1)
        else:
            yield owner


def _has(owner: Any, function: Any) -> bool:
    """Return whether ``function`` is the ``__aexit__`` of the class of ``owner``."""
    return any(vars_of(base).get(_EXIT) is function for base in mro_of(class_of(owner)))
