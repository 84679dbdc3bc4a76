"""Suggest the name that a mistyped one stands for."""

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `word`, also in another case; None if none is like it."""
    from difflib import get_close_matches  # noqa: PLC0415  (for messages only)

    by_case = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), by_case, 1)
    return by_case[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean NAME? ` for the nearest of the known names, "" if none is near."""
    near = nearest(word, known)
    return f"did you mean {near}? " if near else ""
