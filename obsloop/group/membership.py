"""This process as a member of its group: it publishes its metrics, and reads those of the others.

A member writes two files in its slot. ``N.lock`` has the heartbeat, written twice a second by the service's thread.
``N.json`` has the metrics, written each second by the thread ``group``. Both are written whatever the loop does, unless
C code holds the GIL or the process is stopped. Then the others show what was published last.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass

from obsloop.base.guarded import harmless
from obsloop.base.stderr import say_once
from obsloop.group import ask, current, folder as folders, health, published, slots
from obsloop.group.published import Published

PUBLISH_SECONDS = 1.0
BEAT_SECONDS = 0.5
ASK_SECONDS = 0.1
"""How long the others have to send fresh metrics. Then those that they published last are used."""
_MAX_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Worker:
    """One slot of the group, at one moment."""

    number: int
    alive: bool
    """Whether a process has the slot. The metrics of a slot without one are those that its last process left."""
    health: health.Health | None
    """None if there is no process, or if it has said nothing yet."""
    metrics: Published
    here: bool = False
    """Whether this is the process that reads."""


class Member:
    """This process in its group."""

    def __init__(self, folder: str, slot: slots.Slot, unhealthy_after: float) -> None:
        self.folder = folder
        self.number = slot.number
        self._slot = slot
        self._unhealthy_after = unhealthy_after
        self._process = os.getpid()
        # What earlier processes of this slot counted. This process's metrics begin from there.
        self._past = published.lasting(published.decode(self._file(slot.number)))
        self._writing = threading.Lock()
        self._left = False

    def metrics(self) -> Published:
        """Return the metrics of this slot: of this process and of those before it."""
        return published.added(self._past, published.now())

    def beat(self) -> float:
        """Write the heartbeat. Return after how many seconds to write the next one. Never raises and never waits."""
        with harmless:
            try:
                self._slot.beat(health.state(self._process, self._unhealthy_after))
            except OSError as error:
                self._report(error)
        return BEAT_SECONDS

    def publish(self) -> float:
        """Write the metrics. Return after how many seconds to write the next ones. Never raises."""
        with harmless:
            self.published()
        return PUBLISH_SECONDS

    def published(self) -> bytes:
        """Write the metrics and return them, encoded."""
        return self._written()[1]

    def _written(self) -> tuple[Published, bytes]:
        """Write the metrics and return them, also encoded."""
        with self._writing:
            metrics = self.metrics()
            data = published.encode(metrics)
            if self._left:  # the file is the successor's now
                return metrics, data
            path = slots.path_of(self.folder, self.number, "json")
            try:
                # A new file each time, under another name until it is whole: a reader never sees half of one.
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(f"{path}.new", flags, 0o600)
                try:
                    written = os.write(descriptor, data)
                finally:
                    os.close(descriptor)
                if written == len(data):
                    os.replace(f"{path}.new", path)
            except OSError as error:
                self._report(error)
        return metrics, data

    def workers(self, *, ask_seconds: float = ASK_SECONDS) -> list[Worker]:
        """Return all slots of the group, with fresh metrics of those that answer within `ask_seconds`."""
        beats = {n: slots.read(self.folder, n) for n in slots.numbers(self.folder) if n != self.number}
        known = {n: health.of(beat.state) if beat.alive else None for n, beat in beats.items()}
        asked = {
            n: slots.path_of(self.folder, n, "sock")
            for n, beat in beats.items()
            if beat.alive and not getattr(known[n], "silent_ns", 0)
        }
        fresh = ask.ask(asked, "/own-metrics", ask_seconds) if ask_seconds else {}
        found = [Worker(n, beats[n].alive, known[n], published.decode(fresh.get(n) or self._file(n))) for n in beats]
        own = health.of(health.state(self._process, self._unhealthy_after))
        # Written, too: what a scraper has seen must be seen again if this process is stuck or killed a moment later.
        found.append(Worker(self.number, True, own, self._written()[0], here=True))
        return sorted(found, key=lambda worker: worker.number)

    def healths(self) -> dict[int, health.Health]:
        """Return the state of each process of the group. It waits for none of them."""
        found = {self.number: health.of(health.state(self._process, self._unhealthy_after))}
        for number in slots.numbers(self.folder):
            if number != self.number:
                beat = slots.read(self.folder, number)
                found[number] = health.of(beat.state) if beat.alive else None
        return {number: state for number, state in sorted(found.items()) if state is not None}

    def others(self) -> dict[int, str]:
        """Return the sockets of the other processes that are alive and not silent."""
        return {
            number: slots.path_of(self.folder, number, "sock")
            for number, state in self.healths().items()
            if number != self.number and not state.silent_ns
        }

    def leave(self) -> None:
        """Publish for the last time, and give the slot back to a successor."""
        if self._process == os.getpid():
            self.publish()
            with self._writing:
                self._left = True
            for kind in ("sock", "give"):
                with suppress(OSError):
                    os.unlink(slots.path_of(self.folder, self.number, kind))
            self._slot.leave()
            folders.leave(self.folder)

    def is_last(self) -> bool:
        """Return whether no other process of the group is alive."""
        return slots.living(self.folder) in ([], [self.number])

    def _file(self, number: int) -> bytes:
        with suppress(OSError):
            descriptor = os.open(slots.path_of(self.folder, number, "json"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(descriptor, "rb") as file:
                return file.read(_MAX_FILE)
        return b""

    def _report(self, error: OSError) -> None:
        say_once(
            "group-publish",
            f"cannot write to {self.folder}: {error.strerror or error}. The group's other processes do not see this "
            "one's metrics until it can. The program runs on.",
        )


def join(name: str, unhealthy_after: float) -> Member:
    """Join the group, whose folder the caller has locked. Raise FolderError or OSError if that is not possible."""
    folder = folders.folder_of(name)
    slot = slots.take(folder)
    if slot is None:
        raise folders.FolderError(f"{folder} has {slots.MAX_SLOTS} processes already")
    member = current.member = Member(folder, slot, unhealthy_after)
    return member
