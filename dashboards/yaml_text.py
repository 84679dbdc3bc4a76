"""Write enough YAML for rules: mappings, lists and scalars in block style, strings as in JSON, which YAML can read.

So building needs no YAML package. The tests read the result with one.
"""

import json
from collections.abc import Iterator
from typing import Any


def text(value: dict[str, Any], head: str) -> str:
    """Return a document with a comment above it."""
    comments = "".join(f"# {line}\n" for line in head.splitlines())
    return comments + "\n".join(_mapping(value, "")) + "\n"


def _mapping(value: dict[str, Any], indent: str) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, (dict, list)) and inner:
            yield f"{indent}{key}:"
            deeper = f"{indent}  "
            yield from _mapping(inner, deeper) if isinstance(inner, dict) else _list(inner, deeper)
        else:
            yield f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}"


def _list(value: list[Any], indent: str) -> Iterator[str]:
    for inner in value:
        if isinstance(inner, dict):
            first, *rest = _mapping(inner, f"{indent}  ")
            yield f"{indent}- {first.strip()}"
            yield from rest
        else:
            yield f"{indent}- {json.dumps(inner, ensure_ascii=False)}"
