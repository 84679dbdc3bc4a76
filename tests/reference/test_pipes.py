"""connect_read_pipe and connect_write_pipe."""

import asyncio
import os
import stat

import pytest

from .support import run


class PipeEnd(asyncio.Protocol):
    """A protocol for either end of a pipe."""

    def __init__(self):
        self.events = []
        self.data = b""
        self.transport = None
        self.arrived = asyncio.Event()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data
        self.arrived.set()

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.closed.set_result(exc)


@pytest.fixture
def ends():
    """A pipe as two unbuffered files. A transport closes the file that it is given."""
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as reader, os.fdopen(write, "wb", 0) as writer:
        yield reader, writer


def test_read_pipe(loop, ends):
    """What is written arrives, then the end; the file is set to non-blocking, and closed at the end."""
    reader, writer = ends

    async def main():
        transport, protocol = await loop.connect_read_pipe(PipeEnd, reader)
        assert isinstance(transport, asyncio.ReadTransport)
        assert protocol.events == ["made"]
        assert transport.get_extra_info("pipe") is reader
        assert not os.get_blocking(reader.fileno())
        writer.write(b"one")
        await protocol.arrived.wait()
        assert protocol.data == b"one"
        writer.write(b"two")
        writer.close()
        assert await protocol.closed is None
        assert protocol.data == b"onetwo"
        assert protocol.events == ["made", "eof", "lost"]
        assert reader.closed

    run(loop, main())


def test_read_pipe_pause_and_resume(loop, ends):
    """A paused read transport delivers nothing until it is resumed."""
    reader, writer = ends

    async def main():
        transport, protocol = await loop.connect_read_pipe(PipeEnd, reader)
        transport.pause_reading()
        writer.write(b"later")
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        transport.resume_reading()
        await protocol.arrived.wait()
        assert protocol.data == b"later"
        transport.close()
        assert transport.is_closing()
        await protocol.closed

    run(loop, main())


def test_write_pipe(loop, ends):
    """What the transport writes can be read; write_eof ends it."""
    reader, writer = ends

    async def main():
        transport, protocol = await loop.connect_write_pipe(PipeEnd, writer)
        assert isinstance(transport, asyncio.WriteTransport)
        assert protocol.events == ["made"]
        assert not os.get_blocking(writer.fileno())
        assert stat.S_ISFIFO(os.fstat(transport.get_extra_info("pipe").fileno()).st_mode)
        transport.writelines([b"one", b"two"])
        assert reader.read(100) == b"onetwo"
        assert transport.can_write_eof()
        transport.write_eof()
        assert await protocol.closed is None
        assert reader.read(100) == b""
        assert writer.closed

    run(loop, main())


def test_write_pipe_flow_control(loop, ends):
    """A full pipe pauses the protocol; a reader that catches up resumes it."""
    reader, writer = ends
    blob = b"x" * 1_000_000

    async def main():
        read_transport, read_protocol = await loop.connect_read_pipe(PipeEnd, reader)
        read_transport.pause_reading()
        transport, protocol = await loop.connect_write_pipe(PipeEnd, writer)
        transport.write(blob)
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > 0
        read_transport.resume_reading()
        transport.close()
        await protocol.closed
        await read_protocol.closed
        assert len(read_protocol.data) == len(blob)
        assert protocol.events == ["made", "pause", "resume", "lost"]

    run(loop, main())


def test_write_pipe_whose_reader_goes_away(loop, ends):
    """The reader's closing is noticed even by a writer that writes nothing."""
    reader, writer = ends

    async def main():
        _, protocol = await loop.connect_write_pipe(PipeEnd, writer)
        reader.close()
        assert isinstance(await protocol.closed, (BrokenPipeError, type(None)))

    run(loop, main())


def test_abort(loop, ends):
    """abort() throws away what is not yet written."""
    _, writer = ends

    async def main():
        transport, protocol = await loop.connect_write_pipe(PipeEnd, writer)
        transport.write(b"x" * 1_000_000)
        transport.abort()
        assert await protocol.closed is None

    run(loop, main())


def test_streams_on_pipes(loop, ends):
    """A StreamReader can be put on a pipe, as programs do to read their stdin."""
    reader, writer = ends

    async def main():
        stream = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reader)
        writer.write(b"a line\n")
        assert await stream.readline() == b"a line\n"
        writer.close()
        assert await stream.read() == b""
        transport.close()
        await asyncio.sleep(0)

    run(loop, main())


def test_a_regular_file_is_refused(loop, tmp_path):
    """Pipes, sockets and character devices only: ValueError."""
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def main():
        with path.open("r+b") as file:
            with pytest.raises(ValueError, match="Pipe transport is for pipes/sockets only"):
                await loop.connect_read_pipe(PipeEnd, file)
            with pytest.raises(ValueError, match="Pipe transport is only for pipes, sockets and char"):
                await loop.connect_write_pipe(PipeEnd, file)

    run(loop, main())
