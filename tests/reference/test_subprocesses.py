"""subprocess_exec and subprocess_shell, and asyncio's own interface on top of them."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from .support import run


class Child(asyncio.SubprocessProtocol):
    """Keeps what a child process says, and how it ended."""

    def __init__(self):
        self.events = []
        self.output = {1: b"", 2: b""}
        self.transport = None
        loop = asyncio.get_running_loop()
        self.exited, self.closed = loop.create_future(), loop.create_future()
        self.spoke = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        self.output[fd] += data
        self.spoke.set()

    def pipe_connection_lost(self, fd, exc):
        self.events.append(f"pipe {fd} lost")

    def process_exited(self):
        self.events.append("exited")
        self.exited.set_result(self.transport.get_returncode())

    def connection_lost(self, exc):
        self.events.append("lost")
        self.closed.set_result(exc)

    async def ended(self):
        """Wait until the child has ended and all is told; its return code."""
        code = await self.exited
        assert await self.closed is None
        self.transport.close()
        return code


def python(text):
    """The command that runs a piece of Python."""
    return (sys.executable, "-I", "-S", "-c", text)


def test_exec(loop):
    """Both outputs are read to their end, the exit code is told, connection_lost comes last."""

    async def main():
        transport, child = await loop.subprocess_exec(
            Child, *python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
        )
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert transport.get_pid() > 0
        assert child.events[0] == "made"
        assert await child.ended() == 3
        assert child.output == {1: b"out\n", 2: b"err\n"}
        assert child.events[-1] == "lost"
        assert {"pipe 1 lost", "pipe 2 lost", "exited"} <= set(child.events)
        assert transport.get_returncode() == 3

    run(loop, main())


def test_shell(loop):
    """A command line runs in the shell, given as str or bytes."""

    async def main():
        for command in ("echo $((6 * 7)); exit 5", b"echo $((6 * 7)); exit 5"):
            _, child = await loop.subprocess_shell(Child, command)
            assert await child.ended() == 5
            assert child.output[1] == b"42\n"

    run(loop, main())


def test_stdin(loop):
    """Data written to the child's stdin gets there, and its end too."""

    async def main():
        transport, child = await loop.subprocess_exec(
            Child, *python("import sys; print(sys.stdin.read().upper(), end='')")
        )
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
        stdin.write(b"shout" * 50_000)
        stdin.close()
        assert await child.ended() == 0
        assert child.output[1] == b"SHOUT" * 50_000

    run(loop, main())


def test_pipes_can_be_left_out(loop):
    """DEVNULL, STDOUT and None are passed to subprocess.Popen; environment and directory as well."""

    async def main():
        transport, child = await loop.subprocess_exec(
            Child,
            *python("import os, sys; print(os.environ['STORY'], os.getcwd()); sys.stderr.write('both')"),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env={"STORY": "told"},
            cwd="/",
        )
        assert transport.get_pipe_transport(0) is None
        assert transport.get_pipe_transport(2) is None
        assert await child.ended() == 0
        assert sorted(child.output[1].replace(b"both", b"both\n").split(b"\n")) == [b"", b"both", b"told /"]

    run(loop, main())


@pytest.mark.parametrize(
    ("method", "number"),
    [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM), ("send_signal", signal.SIGUSR1)],
)
def test_signals_to_the_child(loop, method, number):
    """kill, terminate and send_signal end it; the return code is the negative signal number."""

    async def main():
        transport, child = await loop.subprocess_exec(
            Child, *python("print('up', flush=True); import time; time.sleep(60)"), stdin=None
        )
        await child.spoke.wait()
        getattr(transport, method)(*([number] if method == "send_signal" else []))
        assert await child.ended() == -number
        with pytest.raises(ProcessLookupError):
            transport.send_signal(number)

    run(loop, main())


def test_close_kills(loop):
    """Closing the transport of a live child kills it."""

    async def main():
        transport, child = await loop.subprocess_exec(Child, *python("import time; time.sleep(60)"))
        transport.close()
        assert await child.ended() == -signal.SIGKILL

    run(loop, main())


def test_a_program_that_is_not_there(loop, tmp_path):
    """The error of the system, and no protocol told of a connection."""
    made = []

    def factory():
        made.append(Child())
        return made[-1]

    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.subprocess_exec(factory, str(tmp_path / "no such program"))
        assert [child.events for child in made] == [[]]

    run(loop, main())


def test_arguments_that_are_refused(loop):
    """Text mode, a shell for exec, and a list for a shell's command are ValueErrors."""

    async def main():
        for attempt in (
            lambda: loop.subprocess_exec(Child, "true", universal_newlines=True),
            lambda: loop.subprocess_exec(Child, "true", text=True),
            lambda: loop.subprocess_exec(Child, "true", shell=True),
            lambda: loop.subprocess_exec(Child, "true", bufsize=4096),
            lambda: loop.subprocess_shell(Child, ["true"]),
            lambda: loop.subprocess_shell(Child, "true", shell=False),
        ):
            with pytest.raises(ValueError, match=r"must|text"):
                await attempt()

    run(loop, main())


def test_many_at_once(loop):
    """Twenty children at once, each with its own exit code, none mixed up."""

    async def one(code):
        process = await asyncio.create_subprocess_shell(f"echo {code}; exit {code}", stdout=subprocess.PIPE)
        out, err = await process.communicate()
        assert (out, err) == (b"%d\n" % code, None)
        return process.returncode

    async def main():
        return await asyncio.gather(*(one(code) for code in range(20)))

    assert run(loop, main()) == list(range(20))


def test_communicate_and_wait(loop):
    """asyncio.create_subprocess_exec, with input, on the loop."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            *python("import sys; sys.stderr.write('e'); print(sys.stdin.read()[::-1])"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert await process.communicate(b"abc") == (b"cba\n", b"e")
        assert await process.wait() == 0
        process = await asyncio.create_subprocess_exec(*python("import time; time.sleep(60)"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(loop, main())


def test_no_child_is_left_behind(loop):
    """The children have been waited for: no zombies."""

    async def main():
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        return process.pid

    pid = run(loop, main())
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
