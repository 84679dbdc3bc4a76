"""Transports of pipes: one to read from, one to write to."""

from __future__ import annotations

# asyncio's transports have no types, so pyright knows none of the types derived from them:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
import os
from asyncio.log import logger
from typing import Any

from obsloop.base.asyncio_private import private_unix_events
from obsloop.probes.network.transports.accounting import given_up, opened, set_buffered
from obsloop.probes.network.transports.base import Buffering, Measured

StockReadPipe: Any = getattr(private_unix_events, "_UnixReadPipeTransport", object)
StockWritePipe: Any = getattr(private_unix_events, "_UnixWritePipeTransport", object)


class ReadPipeTransport(Measured, StockReadPipe):  # type: ignore[misc]
    """The end of a pipe that is read from."""

    def __init__(self, loop: Any, pipe: Any, protocol: Any, *args: Any, stats: Any, **kwargs: Any) -> None:
        self._obsloop_stats = stats
        super().__init__(loop, pipe, protocol, *args, **kwargs)
        opened(self, stats)

    def _read_ready(self) -> None:
        """Read as asyncio does, and count the bytes."""
        try:
            data = os.read(self._fileno, self.max_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._fatal_error(exc, "Fatal read error on pipe transport")
            return
        if data:
            self._obsloop_stats.read(len(data))
            self._protocol.data_received(data)
            return
        self._obsloop_stats.reason = "eof"
        if self._loop.get_debug():
            logger.info("%r was closed by peer", self)
        self._closing = True
        self._loop._remove_reader(self._fileno)
        self._loop.call_soon(self._protocol.eof_received)
        self._loop.call_soon(self._call_connection_lost, None)

    def close(self) -> None:
        self._obsloop_stats.reason = self._obsloop_stats.reason or "local"
        super().close()

    def _close(self, exc: BaseException | None) -> None:
        if exc is not None:
            given_up(self._obsloop_stats, exc)
        super()._close(exc)


class WritePipeTransport(Buffering, StockWritePipe):  # type: ignore[misc]
    """The end of a pipe that is written to."""

    def __init__(self, loop: Any, pipe: Any, protocol: Any, *args: Any, stats: Any, **kwargs: Any) -> None:
        self._obsloop_stats = stats
        super().__init__(loop, pipe, protocol, *args, **kwargs)
        opened(self, stats)

    def _read_ready(self) -> None:
        self._obsloop_stats.reason = self._obsloop_stats.reason or "eof"
        super()._read_ready()

    def write(self, data: Any) -> None:
        """Write as the stock transport does, and count the bytes."""
        stats = self._obsloop_stats
        known = isinstance(data, (bytes, bytearray, memoryview)) and not (self._conn_lost or self._closing)
        stats.offered = len(data) if known else 0
        try:
            super().write(data)
            if stats.offered and not self._conn_lost:
                stats.wrote(stats.offered)
        finally:
            stats.offered = 0

    def _write_ready(self) -> None:
        super()._write_ready()
        if not self._conn_lost and self._pipe is not None:
            self._shrank(self._obsloop_stats)

    def write_eof(self) -> None:
        self._obsloop_stats.reason = self._obsloop_stats.reason or "local"
        super().write_eof()

    def _close(self, exc: BaseException | None = None) -> None:
        if exc is not None or not self._obsloop_stats.reason:
            given_up(self._obsloop_stats, exc)
        else:
            set_buffered(self._obsloop_stats, 0)
        super()._close(exc)
