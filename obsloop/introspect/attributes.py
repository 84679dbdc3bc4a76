"""Read attributes without running any code of the program.

Attributes are read where C keeps them, past ``__getattr__``, properties, metaclasses and ``__class__``. No object of
the program is called, compared or formatted.
"""

from __future__ import annotations

from collections.abc import Callable
from types import GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any

LONGEST = 200
"""The longest name or detail, in characters."""

class_of: Callable[[Any], type[Any]] = type
_dict_get: Any = vars(dict)["get"]
mro_of: Any = vars(type)["__mro__"].__get__
vars_of: Any = vars(type)["__dict__"].__get__
_module: Any = vars(type)["__module__"].__get__
qualname_of: Any = vars(type)["__qualname__"].__get__


def find(cls: type[Any], name: str) -> Any:
    """Return the attribute ``name`` of a class or its bases, as their dictionaries have it, or None."""
    for base in mro_of(cls):
        space = vars_of(base)
        if name in space:
            return space[name]
    return None


def get(obj: Any, name: str) -> Any:
    """Return the attribute as C or the instance's dictionary keeps it, or None."""
    found = find(class_of(obj), name)
    kind = class_of(found)
    if kind is GetSetDescriptorType or kind is MemberDescriptorType:
        try:
            return found.__get__(obj, class_of(obj))
        except AttributeError:  # a slot without a value
            return None
    if name == "__dict__":
        return None
    value = item(get(obj, "__dict__"), name)
    if value is not None:
        return value
    return found if kind is str or kind is int or kind is bool else None


def item(space: Any, key: str) -> Any:
    """Return ``space[key]`` if ``space`` is a dictionary and has it, or None."""
    if is_a(space, dict):
        return _dict_get(space, key)
    return space.get(key) if class_of(space) is MappingProxyType else None


def is_a(obj: Any, cls: type[Any] | tuple[type[Any], ...]) -> bool:
    """Return what ``isinstance`` would, but by the real class. ``cls`` must be plain classes, without a metaclass."""
    return issubclass(class_of(obj), cls)


def text(value: Any) -> str:
    """Return a string as it is, and an empty one for anything else."""
    return value if class_of(value) is str else str.__str__(value) if is_a(value, str) else ""


def clean(text: str) -> str:
    """Make a text printable, and cut it to ``LONGEST``."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def printable(text: str) -> str:
    """Return the text with each control character and newline escaped, so that it cannot begin a new line of a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def join(module: Any, qualname: str) -> str:
    """Return the fully qualified name; names of built-ins have no module."""
    module = text(module)
    return f"{module}.{qualname}" if module and module != "builtins" else qualname


def class_name(cls: type[Any]) -> str:
    """Return the class's fully qualified name."""
    try:
        module = _module(cls)
    except AttributeError:  # the program deleted it
        module = ""
    return join(module, qualname_of(cls))
