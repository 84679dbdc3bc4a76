"""Reading attributes without running anything of the program's: what ``introspect.callbacks`` looks at objects with.

Attributes are read where C keeps them, past ``__getattr__``, properties, metaclasses and ``__class__``; nothing is
called, compared or shown.
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
    """What instances of ``cls`` have under ``name`` from their class, as it is there, or None."""
    for base in mro_of(cls):
        space = vars_of(base)
        if name in space:
            return space[name]
    return None


def get(obj: Any, name: str) -> Any:
    """The attribute where C or the instance's dictionary keeps it, or None."""
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
    """``space[key]`` of a dictionary, or None."""
    if is_a(space, dict):
        return _dict_get(space, key)
    return space.get(key) if class_of(space) is MappingProxyType else None


def is_a(obj: Any, cls: type[Any] | tuple[type[Any], ...]) -> bool:
    """``isinstance`` that cannot be lied to. ``cls`` must be plain classes, none with a metaclass of its own."""
    return issubclass(class_of(obj), cls)


def text(value: Any) -> str:
    """A string as it is, anything else as an empty one."""
    return value if class_of(value) is str else str.__str__(value) if is_a(value, str) else ""


def clean(text: str) -> str:
    """Printable, and of bounded length."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def printable(text: str) -> str:
    """The text with each control character, newlines too, as an escape: it cannot begin another line of a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def join(module: Any, qualname: str) -> str:
    """The fully qualified name; built-in ones stand for themselves."""
    module = text(module)
    return f"{module}.{qualname}" if module and module != "builtins" else qualname


def class_name(cls: type[Any]) -> str:
    """The class's fully qualified name."""
    try:
        module = _module(cls)
    except AttributeError:  # taken away
        module = ""
    return join(module, qualname_of(cls))
