"""Share the listening sockets of a group: the first process binds, and each other one asks any of the others for them.

All of them accept on the same sockets, so the kernel gives a client to whichever is ready first. A process that is
stuck accepts none. When a process ends, nothing has to be taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from obsloop.group import ask, folder as folders, slots
from obsloop.group.folder import FolderError
from obsloop.group.membership import BEAT_SECONDS, PUBLISH_SECONDS, Member, join
from obsloop.service.connection import Listener
from obsloop.service.listeners import listen_unix
from obsloop.service.own import OWN_ROUTES
from obsloop.service.timers import NEVER, Timer

if TYPE_CHECKING:
    from obsloop.service.server import Server

_ASK_SECONDS = 0.5
"""How long another process has to hand over the sockets. It needs the GIL for a moment, and may be busy."""
_AGAIN_SECONDS = 1.0
_SAID = "addresses.json"


class Sharing:
    """This process's part in sharing, while it starts and after."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.listening: dict[str, socket.socket] = {}
        """By address as written: what this process hands on."""
        self.missing: dict[str, Callable[[socket.socket], Listener]] = {}
        """Addresses on which another process listens that did not hand its socket over, since it is stuck."""
        self.others = [number for number in slots.living(member.folder) if number != member.number]

    def ask(self, wanted: list[str]) -> dict[str, socket.socket]:
        """Return the sockets at the `wanted` addresses that the others have."""
        found: dict[str, socket.socket] = {}
        for number in self.others:
            if all(text in found for text in wanted):
                break
            path = slots.path_of(self.member.folder, number, "give")
            for text, sock in ask.ask_for_sockets(path, _ASK_SECONDS).items():
                if text in wanted and text not in found:
                    found[text] = sock
                else:
                    sock.close()
        return found

    def listeners(self) -> list[Listener]:
        """Return the private sockets of this process: one for questions of the others, one that hands sockets over."""
        made: list[Listener] = []
        try:
            for kind in ("sock", "give"):
                path = slots.path_of(self.member.folder, self.member.number, kind)
                sock = listen_unix(path, 0o600)
                give = partial(ask.give_sockets, listening=self.listening) if kind == "give" else None
                made.append(Listener(sock, {} if give else OWN_ROUTES, False, give))
        except BaseException:
            for listener in made:
                listener.sock.close()
            raise
        return made

    def timers(self, server: Callable[[], Server]) -> list[Timer]:
        """Return what the service does for the group."""
        self.member.beat()
        timers = [
            Timer(None, self.member.beat, BEAT_SECONDS),
            Timer("group", self.member.publish, PUBLISH_SECONDS),
            Timer("group", self._clean, 10.0),
        ]
        if self.missing:
            timers.append(Timer("group", partial(self._ask_again, server), _AGAIN_SECONDS))
        return timers

    def remembered(self, text: str) -> int:
        """Return the port that port 0 of this address became for the group; 0 if it has none yet."""
        return int(self._said().get(text, {}).get("port", 0))

    def is_new(self, text: str, url: str, port: int) -> bool:
        """Note where the group is served. Return whether it was not known."""
        said = self._said()
        new: bool = said.get(text, {}).get("url") != url
        if new:
            said[text] = {"url": url, "port": port}
            with suppress(OSError), open(os.path.join(self.member.folder, _SAID), "w") as file:
                json.dump(said, file)
        return new

    def _said(self) -> dict[str, dict[str, Any]]:
        with suppress(OSError, ValueError, AttributeError), open(os.path.join(self.member.folder, _SAID)) as file:
            return dict(json.load(file))
        return {}

    def _ask_again(self, server: Callable[[], Server]) -> float:
        self.others = [number for number in slots.living(self.member.folder) if number != self.member.number]
        for text, sock in self.ask(list(self.missing)).items():
            self.listening[text] = sock
            server().add(self.missing.pop(text)(sock))
        return _AGAIN_SECONDS if self.missing else NEVER

    def _clean(self) -> float:
        folders.remove_old(self.member.folder)
        return NEVER


@contextlib.contextmanager
def joined(address: str, unhealthy_after: float) -> Generator[Sharing | None]:
    """Join the group of this address, and keep other processes from joining it meanwhile. None: it makes no group.

    Raise FolderError or OSError if there is a group and it cannot be joined.
    """
    name = folders.name_for(address, os.environ)
    if name is None:
        yield None
        return
    folder = folders.folder_of(name)
    with slots.FolderLock(folder):
        folders.begin_anew(folder)
        yield Sharing(join(name, unhealthy_after))


__all__ = ["FolderError", "Sharing", "joined"]
