"""What `obsloop top` is asked to show: every group of this user, one group, one process, or a service at a URL."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from obsloop.base.address import parse_address
from obsloop.base.environment import RUN


class TargetError(Exception):
    """The argument means nothing. The message says what is expected."""


@dataclass(frozen=True, slots=True)
class Target:
    """At most one of these is set."""

    process: int = 0
    group: str = ""
    """The group's name, the beginning of it, or the path of its folder."""
    url: str = ""

    def has(self, group: str, path: str) -> bool:
        """Return whether the processes of this group may be meant. For a process id, any group may have it."""
        if not self.group:
            return True
        return path == os.path.realpath(self.group) if os.path.isabs(self.group) else group.startswith(self.group)

    def is_run(self, group: str) -> bool:
        """Return whether the process is the first one of this group, which `obsloop run` made."""
        return bool(self.process) and group.startswith(f"{RUN}{self.process}-")


def parse(argument: str | None) -> Target:
    """Return what an argument means. Raise TargetError if it means nothing."""
    if argument is None:
        return Target()
    if argument.isascii() and argument.isdecimal():
        return Target(process=int(argument[:20]))
    if "://" in argument:
        return Target(url=_url(argument))
    if os.path.isabs(argument) or re.fullmatch(r"[0-9A-Za-z._-]{1,100}", argument):
        return Target(group=argument)
    try:
        parse_address(argument)
    except ValueError:
        raise TargetError(
            f"{argument!r} is no process id, no group and no URL. Expected a number, the name of a group (`obsloop top "
            "--once` shows them), or http://HOST:PORT"
        ) from None
    return Target(url=f"http://{argument}/")


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and text.isprintable()
    except ValueError:
        good, parts = False, urlsplit("")
    if not good:
        raise TargetError(f"{text!r} is not a URL of a service; expected http://HOST:PORT or https://HOST:PORT")
    if parts.username is not None:
        raise TargetError("a URL with a user name is not supported: others on this machine could read its password")
    if parts.query or parts.fragment:
        raise TargetError(f"{text!r} has a query; expected only the address, such as http://{parts.netloc}/")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
