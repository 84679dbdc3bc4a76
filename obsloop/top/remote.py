"""Read a service at a URL: its pages `/` and `/tasks` as JSON, which have all processes of its group."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from obsloop.base import clock
from obsloop.top import shapes
from obsloop.top.shapes import Entry
from obsloop.top.source import BLOCKED_SECONDS, Group, Reading, SourceError, Worker

SECONDS = 3.0
"""How long one answer may take."""
MAX_ANSWER = 16 * 1024 * 1024


class Remote:
    """A service. Redirects are not followed, and no proxy is used."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self.title = url.partition("://")[2].rstrip("/")
        self._last: list[Group] = []
        self._context = ssl.create_default_context() if self._url.scheme == "https" else None

    def read(self, *, tasks: bool = False) -> Reading:
        """Return the present state. Raise SourceError if there has never been an answer."""
        try:
            overview = shapes.mapping(self._get("?format=json"))
            listed = shapes.tasks(self._get("tasks?format=json")) if tasks else None
        except SourceError as error:
            if not self._last:
                raise
            return Reading(self._last, time.time(), str(error))
        if "loops" not in overview:
            raise SourceError(f"{self.title} answers, but it is no service of obsloop. Expected its page /")
        found = shapes.overview(overview)
        workers = shapes.WORKERS(overview.get("workers"))
        if workers:
            states = [_worker(each) for each in workers]
        else:
            states = [Worker(None, shapes.whole(overview.get("process")))]
        for state in states:
            own = [loop for loop in found["loops"] if loop["running"] and loop["worker"] == state.number]
            state.loops = {loop["loop"]: loop["blocked_seconds"] for loop in own}
            if state.status == "ok" and any(seconds >= BLOCKED_SECONDS for seconds in state.loops.values()):
                state.status = "blocked"
        self._last = [Group(self.title, self.title, states, found, listed)]
        return Reading(self._last, time.time())

    def _get(self, path: str) -> Any:
        """Return a page's JSON. Raise SourceError if there is none in time."""
        end = clock.seconds() + SECONDS
        host, port = self._url.hostname or "", self._url.port
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        try:
            connection.request("GET", self._url.path + path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise SourceError(f"{self.title} answers {answer.status} to {self._url.path}{path}, expected 200")
            body = bytearray()
            while data := answer.read1(262_144):
                body += data
                if len(body) > MAX_ANSWER or clock.seconds() > end:
                    raise SourceError(f"{self.title} sends too much, or too slowly")
            return json.loads(body)
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{self.title} does not answer: {shapes.text(str(error) or repr(error))}") from None
        except (ValueError, RecursionError):
            raise SourceError(f"{self.title} answers, but not with JSON: it is no service of obsloop") from None
        finally:
            connection.close()


def _worker(raw: Entry) -> Worker:
    status = raw["status"] if raw["status"] in ("ok", "blocked", "stuck") else "ok"
    if not raw["answered"] and status == "ok":
        status = "late"
    return Worker(
        raw["worker"], raw["process"], status, raw["silent_seconds"], {}, raw["blocked_by"], answered=raw["answered"]
    )
