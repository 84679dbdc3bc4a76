"""What all transports share: when they were made, paused, closed, and how much waits in their buffers."""

from __future__ import annotations

# asyncio's transports have no types, so pyright knows none of the types derived from them:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from typing import Any

from obsloop.base.guarded import failed, guarded
from obsloop.probes.network.transports.accounting import closed, given_up, paused, resumed, set_buffered


class Measured:
    """A mixin for every transport of asyncio's: when it was made, when its connection was lost, and why."""

    __slots__ = ()

    def _call_connection_lost(self: Any, exc: BaseException | None) -> None:
        protocol = self._protocol
        try:
            super()._call_connection_lost(exc)  # type: ignore[misc]
        finally:
            try:
                closed(self, self._obsloop_stats, protocol, exc)
            except BaseException as error:
                failed(closed, error)

    def __del__(self: Any, *args: Any) -> None:
        super().__del__(*args)  # type: ignore[misc]  # warns that it was not closed, and closes it
        stats = getattr(self, "_obsloop_stats", None)
        if stats is not None and stats.opened_ns:
            guarded(closed, self, stats, None, None)


class Buffering(Measured):
    """A mixin for transports that write: their buffer, and when they pause their protocol."""

    __slots__ = ()

    def _maybe_pause_protocol(self: Any) -> None:
        self._grew(self._obsloop_stats)
        was_paused = self._protocol_paused
        super()._maybe_pause_protocol()  # type: ignore[misc]
        if self._protocol_paused and not was_paused:
            guarded(paused, self._obsloop_stats)

    def _maybe_resume_protocol(self: Any) -> None:
        stats = self._obsloop_stats
        self._shrank(stats)
        if self._protocol_paused and self.get_write_buffer_size() <= self._low_water:
            resumed(stats)  # before the protocol resumes: it may write and be paused again
        super()._maybe_resume_protocol()  # type: ignore[misc]

    def _grew(self: Any, stats: Any) -> None:
        """Count a write: what is left over is in the buffer, and the rest has been sent."""
        if stats.offered:
            sent = stats.offered + stats.buffered - self.get_write_buffer_size()
            set_buffered(stats, stats.buffered + stats.offered - sent)
            stats.offered = 0
            stats.wrote(sent)

    def _shrank(self: Any, stats: Any) -> None:
        """Count as sent what is no longer in the buffer."""
        size = self.get_write_buffer_size()
        stats.wrote(stats.buffered - size)
        set_buffered(stats, size)


class SocketLike(Buffering):
    """A mixin for sockets of all kinds, which share asyncio's ``_SelectorTransport``."""

    __slots__ = ()

    def close(self: Any) -> None:
        stats = self._obsloop_stats
        if not self._closing:
            stats.reason = stats.reason or "local"
        if not self._buffer:
            stats.disconnect()
        super().close()  # type: ignore[misc]

    def _force_close(self: Any, exc: BaseException | None) -> None:
        if not self._conn_lost:
            given_up(self._obsloop_stats, exc)
        super()._force_close(exc)  # type: ignore[misc]
