"""Read ``OBSLOOP_*`` variables: which are settings, and what is wrong with the others. Knows no single setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from obsloop.base.log import first_time, logger
from obsloop.base.suggest import nearest

PREFIX = "OBSLOOP_"
GROUP = "OBSLOOP_GROUP"
"""The variable with the name of the group of processes that answer as one, or with the path of its folder."""
RUN = "run-"
"""How the names of groups begin that `obsloop run` makes: this, its process id, and a random part."""
WARNED = "OBSLOOP_RUN_WARNED"
"""The variable in which `obsloop run` lists what it has reported, with commas between: bad variables, and `uvloop`."""

# obsloop's variables that are not settings: they choose the core, require a compiled build, mark the children of
# `obsloop run`, and name the group of processes that answer as one.
_NOT_SETTINGS = frozenset({"OBSLOOP_PURE", "OBSLOOP_REQUIRE_COMPILED", "OBSLOOP_RUN_PID", GROUP, WARNED})

# Kubernetes sets these variables in every container, for a Service named obsloop.
_KUBERNETES = re.compile(r"OBSLOOP_(PORT|PORT_\d+_\w+|SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_\w+)")


def variable_of(setting: str) -> str:
    """Return the name of a setting's variable."""
    return PREFIX + setting.upper()


def read(
    environ: Mapping[str, str], settings: Mapping[str, Callable[[str], Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of the settings that have a variable, and of each bad variable what is wrong with it.

    ``settings`` has a function for each setting, which returns the value of a text or raises ``ValueError``. An empty
    variable counts as unset.
    """
    names = {variable_of(name): name for name in settings}
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS or not text:
            continue
        if variable in names:
            try:
                values[names[variable]] = settings[names[variable]](text)
            except ValueError as error:
                problems[variable] = f"variable {variable}: {error}"
        elif not _KUBERNETES.fullmatch(variable):
            problems[variable] = f"unknown variable {variable}; {_instead(variable, settings)}"
    return values, problems


def warn(environ: Mapping[str, str], warnings: Mapping[str, str]) -> None:
    """Log the warnings of bad variables, once per process, without those that `obsloop run` has printed."""
    printed = environ.get(WARNED, "").split(",")
    for variable, warning in warnings.items():
        if variable not in printed and first_time(f"variable {variable}"):
            with suppress(Exception):  # one of the program's logging handlers may raise
                logger.warning("%s", warning)


def _instead(variable: str, settings: Mapping[str, object]) -> str:
    # Without the prefix: with it, all variables look alike.
    near = nearest(variable.removeprefix(PREFIX), settings)
    if near is not None:
        return f"did you mean {variable_of(near)}?"
    return f"accepted: {', '.join(map(variable_of, settings))}"
