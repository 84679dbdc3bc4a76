"""Tell whether a command starts a server that would run on uvloop, if obsloop did not give it another loop."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

# These servers take uvloop if it is installed, unless `--loop` names another loop.
_TAKE_UVLOOP = frozenset({"uvicorn", "fastapi", "granian", "sanic", "taskiq"})


def would_use_uvloop(program: Sequence[str], file: str) -> bool:
    """Return whether `program`, for which `file` is executed, would run on uvloop, as far as its words show it.

    Only the environment of this interpreter is searched for uvloop. A program in another one says it when it runs.
    """
    if os.path.dirname(file) != os.path.dirname(sys.executable) or find_spec("uvloop") is None:
        return False
    name, *words = program if program[0] != "-m" else [*program[1:], ""]
    server = os.path.basename(name)
    if server in _TAKE_UVLOOP:
        return _option(words, "--loop") in (None, "auto", "uvloop")
    if server == "gunicorn":
        own = "asgi" in (_option(words, "-k"), _option(words, "--worker-class"))
        asked = _option(words, "--asgi-loop") in (None, "auto", "uvloop")
        return any("UvicornWorker" in word for word in words) or (own and asked)
    return server == "hypercorn" and "uvloop" in (_option(words, "-k"), _option(words, "--worker-class"))


def _option(words: Sequence[str], name: str) -> str | None:
    """Return the value of an option, as `NAME VALUE` or `NAME=VALUE`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
