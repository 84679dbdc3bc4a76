"""All settings, from arguments or from ``OBSLOOP_*`` variables.

A bad argument raises an error. A bad variable must not stop a service: the loops log it and use the default.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from obsloop.base import environment
from obsloop.base.address import parse_addresses
from obsloop.base.suggest import did_you_mean

_MAX_NAME = 100
_MAX_HOSTS = 64
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
_MAX_PACKAGES = 64
_PACKAGE = re.compile(r"\w+(\.\w+)*")
_MOST_A_MINUTE = 1_000_000

Level = Literal["basic", "full"]
"""How many metrics are exported."""
Uvloop = Literal["keep", "replace"]
DEFAULT_LEVEL: Level = "full"

_AnySettings = TypeVar("_AnySettings", bound="Settings | SpanSettings")
_T = TypeVar("_T")


class SettingsError(ValueError):
    """An unknown setting, or a value that is not accepted. The message names it, its source, and what is accepted."""


def _suggests_arguments(cls: type[_T]) -> type[_T]:
    """Let an unknown argument of a class of settings raise a TypeError that suggests the nearest one."""
    make: Any = cls.__init__

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in _CHECKS:
                hint = did_you_mean(name, (field.name for field in dataclasses.fields(self)))
                raise TypeError(f"{cls.__name__} has no setting {name!r}; {hint}".removesuffix("; ").rstrip())
        make(self, *args, **kwargs)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


@_suggests_arguments
@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the loops and the service. Raises ``SettingsError`` for a value that is not accepted."""

    name: str | None = None
    """The loop's name in every series. Default: ``main`` in the main thread, else the thread's name, without
    the number that Python put into it."""
    address: str | None = None
    """Where the service listens: ``HOST:PORT`` or ``unix:/PATH``. Default: no service. Port 0 takes a free port. Put
    commas between several addresses. After an address you may write the paths that it serves, instead of all:
    ``127.0.0.1:9464, 10.1.2.3:9464 /metrics /healthz``."""
    socket_mode: int = 0o600
    """Access rights of the service's Unix sockets. By default only the user of this process may connect."""
    allowed_hosts: str | None = None
    """More host names, with commas between them, under which the service answers on loopback. Without any, it answers
    there only to ``localhost``, to IP addresses and to the host of ``address``. With some, the same limit holds on all
    addresses."""
    metrics: Level | None = None
    """Which metrics the exporters of this process export: ``basic``, those that the alerts and the first row of the
    dashboards need, with few buckets, or ``full`` (the default). The first loop whose settings say so decides."""
    uvloop: Uvloop | None = None
    """Which loop a program gets under ``obsloop run`` if it asks for uvloop's. ``replace``, the default: obsloop's.
    ``keep``: uvloop's, observed, with fewer metrics. ``opentelemetry-instrument`` leaves uvloop alone by default."""
    unhealthy_after: float = 1.0
    """Seconds in one callback after which ``/healthz`` and a log line say that the loop is blocked."""
    slow_callback: float | None = None
    """Seconds after which a callback is slow, and its loop blocked: sets the loop's ``slow_callback_duration``. The
    program may set that attribute itself later. Default: asyncio's own, 0.1."""
    slow_iteration: float | None = None
    """Seconds after which an iteration is slow. Default: the loop's ``slow_callback_duration``."""
    slow_task: float = 10.0
    """Seconds from creation to end after which a task is reported to instruments (``on_task_done``). A task that failed
    is reported at any age."""
    log_blocked_after: float = 0.5
    """Seconds of a block from which on it is logged when it is over: one line per culprit in ten seconds."""
    log_slow_callbacks: bool = False
    """Whether every block is logged, from the loop's ``slow_callback_duration`` on."""
    own_packages: str | None = None
    """Packages that count as the program's own code although they are installed, with commas between them:
    ``shop, shop_common``. A block is blamed on the innermost line of own code."""
    foreign_packages: str | None = None
    """Packages that count as libraries although they are not installed: ``vendored``."""
    watchdog: bool = True
    """Whether a thread, the watchdog, checks for loops that are blocked now."""
    lints: bool = True
    """Whether the watchdog also checks for tasks with something wrong, and for executors whose jobs wait too long
    (``obsloop.events.TaskLint``)."""
    never_yields_after: float | None = None
    """Seconds in one step after which a task does not let others run. Default: ten slow callbacks, but at least one
    second. A task that is runnable at every check is reported after ten times as long."""
    never_woken_after: float = 30.0
    """Seconds after which a task is reported that waits for a future that nothing can complete."""
    growing_after: float = 60.0
    """Seconds during which the tasks of one kind must grow in number without a pause."""
    growing_by: int = 100
    """By how many tasks they must have grown, and also to twice their number."""
    starved_after: float = 1.0
    """Seconds that a job waits for a worker, after which its executor is reported as starved."""
    pprof: bool = True
    """Whether ``/debug/pprof/profile`` may sample this loop's thread while a client asks for it."""
    track_tasks: bool = False
    """Whether each task notes who created and who cancelled it, for ``/tasks``. Sets a task factory on the loop."""
    track_locks: bool = False
    """Whether locks, events and queues note the line that made them. Replaces ``__init__`` of asyncio's classes."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_argument(field.name, getattr(self, field.name))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, strict: bool = True) -> Settings:
        """Read settings from ``OBSLOOP_NAME``, ``OBSLOOP_ADDRESS`` and so on. An empty variable counts as unset.

        Without ``environ``, they are read from ``os.environ``. Bad variables raise one ``SettingsError`` that names
        all of them. With ``strict=False``, as the loops read them, each is logged once per process, and its default is
        used.
        """
        return _read(cls, environ, strict)

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The variables' names, in the order of the fields."""
        return tuple(environment.variable_of(field.name) for field in dataclasses.fields(cls))


@_suggests_arguments
@dataclass(frozen=True, slots=True)
class SpanSettings:
    """Settings of the OpenTelemetry spans. Raises ``SettingsError`` for a value that is not accepted."""

    spans_per_minute: int = 60
    """The most spans per minute, on average, and the most at once. Spans over it are counted and not made. 0: none."""
    slow_job: float = 1.0
    """Seconds from submission to end after which an executor's job gets a span. A failed job gets one after any time.
    0: every job."""
    slow_connection: float = 1.0
    """Seconds of set-up after which a connection gets a span. A failed one gets it after any time. 0: every one."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_argument(field.name, getattr(self, field.name))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, strict: bool = True) -> SpanSettings:
        """Read ``OBSLOOP_SPANS_PER_MINUTE``, ``OBSLOOP_SLOW_JOB`` and so on. An empty variable counts as unset.

        Without ``environ``, they are read from ``os.environ``. Bad variables raise one ``SettingsError`` that names
        all of them. With ``strict=False``, as the loops read them, each is logged once per process, and its default is
        used.
        """
        return _read(cls, environ, strict)

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The variables' names, in the order of the fields."""
        return tuple(environment.variable_of(field.name) for field in dataclasses.fields(cls))


def _read(cls: type[_AnySettings], environ: Mapping[str, str] | None, strict: bool) -> _AnySettings:
    environ = os.environ if environ is None else environ
    values, problems = environment.read(environ, _PARSE)
    if strict and problems:
        raise SettingsError("\n".join(problems.values()))
    environment.warn(environ, {variable: _with_default(variable, problem) for variable, problem in problems.items()})
    own = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in own})


def warnings_of(environ: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a warning for each bad variable: what is wrong with it, and what obsloop does instead.

    ``defaults`` has, by variable, defaults that are not those of the classes.
    """
    return {
        variable: _with_default(variable, problem, (defaults or {}).get(variable))
        for variable, problem in environment.read(environ, _PARSE)[1].items()
    }


def _with_default(variable: str, problem: str, default: object = None) -> str:
    fields = {environment.variable_of(f.name): f for cls in (Settings, SpanSettings) for f in dataclasses.fields(cls)}
    if variable not in fields:
        return f"{problem}{'' if problem.endswith('?') else '.'} obsloop ignores it."
    default = fields[variable].default if default is None else default
    return f"{problem}. obsloop uses the default{'' if default is None else f', {default}'}."


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # _check says what is wrong with it


def _whole_number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # _check says what is wrong with it


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _yes_or_no(text: str) -> bool | str:
    return _WORDS.get(text.strip().lower(), text)  # _check says what is wrong with it


def _octal(text: str) -> int | str:
    try:
        return int(text, 8)
    except ValueError:
        return text  # _check says what is wrong with it


_READ: dict[str, Callable[[str], Any]] = {
    "socket_mode": _octal,
    "unhealthy_after": _number,
    "slow_callback": _number,
    "slow_iteration": _number,
    "log_blocked_after": _number,
    "slow_task": _number,
    "log_slow_callbacks": _yes_or_no,
    "watchdog": _yes_or_no,
    "spans_per_minute": _whole_number,
    "slow_job": _number,
    "slow_connection": _number,
    "lints": _yes_or_no,
    "never_yields_after": _number,
    "never_woken_after": _number,
    "growing_after": _number,
    "growing_by": _whole_number,
    "starved_after": _number,
    "pprof": _yes_or_no,
    "track_tasks": _yes_or_no,
    "track_locks": _yes_or_no,
}


def _check(name: str, value: Any) -> Any:
    problem = _CHECKS[name](value)
    if problem:
        raise SettingsError(f"{value!r} is not accepted; {problem}")
    return value


def _parse(name: str, text: str) -> Any:
    return _check(name, _READ.get(name, str)(text))


def _check_argument(name: str, value: Any) -> None:
    try:
        _check(name, value)
    except SettingsError as error:
        raise SettingsError(f"argument {name}: {error}") from None


def tidy_name(name: str) -> str:
    """Make a name that was not checked, such as a thread's, printable and short, as the setting must be."""
    return "".join(c if c.isprintable() else "?" for c in name[:_MAX_NAME]) or "?"


def _check_name(value: Any) -> str:
    if value is None or (isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isprintable()):
        return ""
    return f"expected a name of 1 to {_MAX_NAME} printable characters, or none"


def _check_address(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return 'expected "HOST:PORT", for example "127.0.0.1:9464"'
    try:
        parse_addresses(value)
    except ValueError as exc:
        return str(exc)
    return ""


def _check_socket_mode(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return ""
    return "expected access rights from 0 to 0o777, such as 0o660 (in a variable octal: 0660)"


def _check_hosts(value: Any) -> str:
    if value is None:
        return ""
    names = value.split(",") if isinstance(value, str) else []
    if 0 < len(names) <= _MAX_HOSTS and all(_HOST_NAME.fullmatch(name.strip()) for name in names):
        return ""
    return (
        f"expected up to {_MAX_HOSTS} host names with commas between them, such as metrics.example.org; "
        "no ports, no http://, no patterns"
    )


def _check_packages(value: Any) -> str:
    if value is None:
        return ""
    names = value.split(",") if isinstance(value, str) else []
    if 0 < len(names) <= _MAX_PACKAGES and all(_PACKAGE.fullmatch(name.strip()) for name in names):
        return ""
    return f"expected up to {_MAX_PACKAGES} names of packages with commas between them, such as shop, shop.views"


def _check_choice(choices: tuple[str, ...], value: Any) -> str:
    if value is None or value in choices:
        return ""
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"{hint}expected {' or '.join(choices)}"


def _check_seconds(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return ""
    return "expected a number of seconds above 0, such as 2.5"


def _check_seconds_or_none(value: Any) -> str:
    return "" if value is None else _check_seconds(value)


def _check_seconds_from_zero(value: Any) -> str:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return "" if ok else "expected a number of seconds, 0 or above"


def _check_number_a_minute(value: Any) -> str:
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_A_MINUTE
    return "" if ok else f"expected a whole number from 0 to {_MOST_A_MINUTE}"


def _check_count(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return ""
    return "expected a whole number above 0"


def _check_yes_or_no(value: Any) -> str:
    if isinstance(value, bool):
        return ""
    hint = did_you_mean(value, _WORDS) if isinstance(value, str) else ""
    return f"{hint}expected True or False (in a variable 1 or 0, yes or no, on or off)"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "name": _check_name,
    "address": _check_address,
    "socket_mode": _check_socket_mode,
    "allowed_hosts": _check_hosts,
    "metrics": functools.partial(_check_choice, get_args(Level)),
    "uvloop": functools.partial(_check_choice, get_args(Uvloop)),
    "unhealthy_after": _check_seconds,
    "slow_callback": _check_seconds_or_none,
    "slow_iteration": _check_seconds_or_none,
    "log_blocked_after": _check_seconds,
    "own_packages": _check_packages,
    "foreign_packages": _check_packages,
    "slow_task": _check_seconds,
    "log_slow_callbacks": _check_yes_or_no,
    "watchdog": _check_yes_or_no,
    "spans_per_minute": _check_number_a_minute,
    "slow_job": _check_seconds_from_zero,
    "slow_connection": _check_seconds_from_zero,
    "lints": _check_yes_or_no,
    "never_yields_after": _check_seconds_or_none,
    "never_woken_after": _check_seconds,
    "growing_after": _check_seconds,
    "growing_by": _check_count,
    "starved_after": _check_seconds,
    "pprof": _check_yes_or_no,
    "track_tasks": _check_yes_or_no,
    "track_locks": _check_yes_or_no,
}

_PARSE: dict[str, Callable[[str], Any]] = {
    field.name: functools.partial(_parse, field.name)
    for cls in (Settings, SpanSettings)
    for field in dataclasses.fields(cls)
}
"""From a variable's text to the value, for each setting."""
