"""Spans: what arrives at a real receiver has the program's structure, the delays that were put in, and its errors."""

import asyncio
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import trustme
from opentelemetry import trace

import obsloop
from obsloop import SpanSettings
from obsloop.testing import Recorder
from tests.exporters.traces import MS, traced, tree
from tests.support import block

BLOCK, SLOW, ROOM = 0.2, 0.25, 60.0
"""Seconds put in, and how much more a busy machine may add."""
WIRES = pytest.mark.parametrize("wire", ["http", pytest.param("grpc", marks=pytest.mark.clients)])


def took(span, seconds: float) -> bool:
    """Whether it has the delay that was put in, and little else."""
    return seconds <= span.seconds < seconds + ROOM


@WIRES
def test_the_tree_is_the_programs_structure(wire):
    """A job, a block, a child process and a connection, each beneath the span that was active for it."""
    with traced(wire) as got:
        tracer = got.tracer

        def look_up_the_price() -> None:
            with tracer.start_as_current_span("price"):
                time.sleep(BLOCK)

        async def report() -> None:
            with tracer.start_as_current_span("report"):
                await asyncio.sleep(0)
                block(BLOCK)
                await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.sleep(0.15)  # the watchdog knows the loop by now
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            ports.append(port)
            with tracer.start_as_current_span("order"):
                await asyncio.to_thread(look_up_the_price)
                await asyncio.create_task(report())
                child = await asyncio.create_subprocess_exec(sys.executable, "-c", f"import time; time.sleep({BLOCK})")
                await child.wait()
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
            server.close()

        ports: list[int] = []
        before = time.time_ns()
        obsloop.run(main())
        after = time.time_ns()
        where, program = (
            f"{__name__}.test_the_tree_is_the_programs_structure.<locals>",
            sys.executable.rpartition("/")[2],
        )
        assert tree(got.all) == {
            "order": {
                f"asyncio executor {where}.look_up_the_price": {},
                "price": {},
                "report": {f"asyncio callback {where}.report": {}},
                program: {},
                f"asyncio connection_setup 127.0.0.1:{ports[0]}": {f"socket connect 127.0.0.1:{ports[0]}": {}},
            }
        }
        assert len({span.trace for span in got.all}) == 1
        for name in ("asyncio executor", "asyncio callback", program):
            assert took(got.one(name), BLOCK), name
        for span in got.all:
            assert before - 20 * MS <= span.start_ns <= span.end_ns <= after + 20 * MS, span.name
            assert (span.status, span.links) == (0, [])
        worker, job = got.named("price"), got.one("asyncio executor")
        assert job.start_ns - MS <= worker.start_ns <= worker.end_ns <= job.end_ns + MS


def test_a_slow_callback_says_who_where_why_and_what_the_watchdog_saw():
    """Attributes by the conventions; a span event for each sample, with the stack of that moment."""
    with traced() as got:

        def fetch() -> None:
            block(3 * SLOW, least=2)

        async def main() -> None:
            asyncio.get_running_loop().slow_callback_duration = SLOW
            await asyncio.sleep(0.15)
            fetch()
            await asyncio.sleep(0)

        with Recorder() as events:
            obsloop.run(main(), settings=obsloop.Settings(name="api", foreign_packages="tests.support"))
        (event,) = events.slow_callbacks
        span = got.one("asyncio callback")
        assert took(span, 3 * SLOW)
        found = dict(span.attributes)
        assert found.pop("asyncio.eventloop.callback.duration") == pytest.approx(span.seconds, abs=1e-5)
        assert 0 <= found.pop("asyncio.eventloop.schedule.delay") < ROOM
        assert found.pop("asyncio.eventloop.callback.cpu_time") == event.cpu_time
        assert found.pop("asyncio.task.name").startswith("Task-")
        assert found == {
            "asyncio.eventloop.name": "api",
            "asyncio.eventloop.callback.kind": "task_step",
            "asyncio.eventloop.block.cause": event.cause,
            "asyncio.eventloop.callback.name": f"{main.__module__}.{main.__qualname__}",
            "code.function.name": f"{fetch.__module__}.{fetch.__qualname__}",
            "code.file.path": __file__,
            "code.line.number": fetch.__code__.co_firstlineno + 1,
            "thread.id": threading.get_ident(),
            "thread.name": "MainThread",
        }
        assert len(span.events) >= 2  # when it is slow, and when the age has doubled
        for name, at_ns, attributes in span.events:
            assert name == "sample"
            assert span.start_ns + SLOW * 1000 * MS <= at_ns <= span.end_ns
            line = fetch.__code__.co_firstlineno + 1
            assert f'  File "{__file__}", line {line}, in fetch\n' in attributes["code.stacktrace"]


def test_samples_of_another_callback_of_the_same_iteration_are_not_its_own():
    """Two slow ones in turn: each span's events are within it."""
    with traced() as got:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 0.05
            await asyncio.sleep(0.15)
            for _ in range(2):
                loop.call_soon(block, 0.3)
            await asyncio.sleep(0.01)

        obsloop.run(main())
        first, second = sorted(got.spans(f"asyncio callback {block.__module__}.block"), key=lambda span: span.start_ns)
        assert first.end_ns <= second.start_ns + MS
        for span in (first, second):
            assert span.parent == b""
            assert all(span.start_ns <= at_ns <= span.end_ns for _, at_ns, _ in span.events)
            assert span.events


def test_a_connections_phases_are_beneath_it(monkeypatch):
    """A resolver and a peer that take long: the delay is found in the look-up and in the handshake, not elsewhere."""
    authority = trustme.CA()
    served, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(client)
    stock = socket.getaddrinfo

    def slow_look_up(host, *args, **kwargs):
        if host == "localhost":
            time.sleep(BLOCK)
        return stock("127.0.0.1" if host == "localhost" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve() -> None:
        connection, _ = listening.accept()
        connection.recv(1, socket.MSG_PEEK)  # the handshake has begun
        time.sleep(BLOCK)
        with served.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with traced(settings=SpanSettings(slow_connection=2 * BLOCK)) as got:

        async def main() -> None:
            _, writer = await asyncio.open_connection("localhost", port, ssl=client)
            writer.close()
            await writer.wait_closed()  # TLS takes leave first: the loop would be closed before the socket

        obsloop.run(main())
        thread.join()
        listening.close()
        root = got.one("asyncio connection_setup")
        assert tree(got.all) == {
            f"asyncio connection_setup localhost:{port}": {
                "DNS lookup localhost": {},
                f"socket connect 127.0.0.1:{port}": {},
                "TLS client handshake localhost": {},
            }
        }
        look_up, attempt, handshake = (got.one(name) for name in ("DNS", "socket", "TLS"))
        assert took(root, 2 * BLOCK)
        assert took(look_up, BLOCK)
        assert took(handshake, BLOCK)
        assert attempt.seconds <= root.seconds - 2 * BLOCK
        assert root.start_ns - MS <= look_up.start_ns <= look_up.end_ns <= attempt.start_ns + MS
        assert attempt.end_ns <= handshake.start_ns + MS <= handshake.end_ns <= root.end_ns + 2 * MS
        assert look_up.attributes == {"dns.question.name": "localhost"}
        assert (root.attributes["server.address"], root.attributes["server.port"]) == ("localhost", port)
        assert attempt.attributes == {
            "network.peer.address": "127.0.0.1", "network.peer.port": port, "network.transport": "tcp",
        }  # fmt: skip


def test_failures_have_their_status_and_type():
    """A job that raises, a port where nobody listens, a name that nobody has, children: error and error.type."""
    with traced(settings=SpanSettings()) as got:

        def pay() -> None:
            raise PermissionError("4242 4242 4242 4242")

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(PermissionError):
                await loop.run_in_executor(None, pay)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises(socket.gaierror):
                await asyncio.open_connection("no-such-host.invalid", 80)
            for end in ("exit 3", "kill -TERM $$", "true"):
                await (await asyncio.create_subprocess_shell(end)).wait()

        obsloop.run(main())
        found = {(span.name.rpartition(".")[2], span.attributes.get("error.type"), span.status) for span in got.spans()}
        unknown = next(kind for name, kind, _ in found if name == "DNS lookup no-such-host.invalid"[-7:])
        assert unknown.startswith("EAI_")
        assert found >= {
            ("pay", "PermissionError", 2),
            (f"1:{port}", "ConnectionRefusedError", 2),  # the connection, and its only attempt
            ("invalid:80", unknown, 2),
            ("invalid", unknown, 2),
            ("sh", "3", 2),
            ("sh", "SIGTERM", 2),
            ("sh", None, 0),
        }
        children = sorted(got.spans("sh"), key=lambda span: span.start_ns)
        assert [span.attributes["process.exit.code"] for span in children] == [3, -15, 0]
        assert {span.kind for span in children} == {3}  # CLIENT
        assert {span.kind for span in got.spans("asyncio")} == {1}  # INTERNAL
        refused = got.one(f"asyncio connection_setup 127.0.0.1:{port}")
        assert refused.attributes["asyncio.connection_setup.phase"] == "connect"
        job = got.one(f"asyncio executor {pay.__module__}.{pay.__qualname__}")
        assert job.attributes["asyncio.executor.job.outcome"] == "error"
        assert job.attributes["thread.name"].startswith("asyncio_")
        assert "4242" not in repr(got.all), "no message, no argument"


def test_an_attempt_that_lost_the_race_has_not_failed(monkeypatch):
    """Happy eyeballs: the first address never answers, the second at once."""
    with (
        socket.socket() as full,
        socket.socket() as first,
        socket.create_server(("127.0.0.2", 0)) as listening,
        traced() as got,
    ):
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())  # whoever comes next gets no answer
        second = socket.socket()
        second.setblocking(False)
        second.connect_ex(full.getsockname())
        addresses = [full.getsockname(), listening.getsockname()]
        stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        stock = socket.getaddrinfo

        def look_up(host, *args, **kwargs):
            return [(*stream, one) for one in addresses] if host == "example.org" else stock(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

        async def main() -> None:
            _, writer = await asyncio.open_connection("example.org", 80, happy_eyeballs_delay=BLOCK)
            writer.close()

        obsloop.run(main())
        second.close()
        lost, won = sorted(got.spans("socket connect"), key=lambda span: span.start_ns)
        assert [span.attributes["network.peer.port"] for span in (lost, won)] == [port for _, port in addresses]
        assert took(lost, BLOCK)
        assert lost.attributes["error.type"] == "asyncio.exceptions.CancelledError"
        assert "error.type" not in won.attributes
        root = got.one("asyncio connection_setup")
        assert (lost.status, won.status, root.status) == (0, 0, 0)
        assert lost.parent == won.parent == root.id


def test_a_job_that_waits_for_a_worker_says_when_it_began():
    """From submission to end, with the event `started` where a worker took it; which worker that was."""
    with traced() as got:
        submitted_by = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1, thread_name_prefix="bench") as pool:
                jobs = [loop.run_in_executor(pool, time.sleep, BLOCK) for _ in range(2)]
                submitted_by.append(time.time())
                await asyncio.gather(*jobs)

        obsloop.run(main())
        first, second = sorted(got.spans("asyncio executor time.sleep"), key=lambda span: span.end_ns)
        started = []
        for span in (first, second):
            ((name, at_ns, _),) = span.events
            assert name == "started"
            started.append(at_ns)
            assert span.start_ns <= at_ns
            assert span.start_ns / 1e9 <= submitted_by[0] + 0.01  # spans may read the clock another way
            assert (span.end_ns - at_ns) / 1e9 >= BLOCK
            assert span.attributes["thread.name"] == "bench_0"
            assert span.attributes["asyncio.executor.name"] == "bench"
        assert (started[1] - started[0]) / 1e9 >= BLOCK


def test_jobs_that_begin_elsewhere_or_never():
    """A pool of processes does not tell when it begins; what is cancelled in the queue never does."""
    with traced() as got:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(1) as pool:
                await loop.run_in_executor(pool, time.sleep, BLOCK)
            with ThreadPoolExecutor(1) as pool:
                busy = loop.run_in_executor(pool, time.sleep, BLOCK)
                waiting = loop.run_in_executor(pool, len, "")
                await asyncio.sleep(BLOCK / 2)
                waiting.cancel()
                await busy

        obsloop.run(main())
        elsewhere, never = got.spans("asyncio executor time.sleep")[0], got.one("asyncio executor len")
        assert took(elsewhere, BLOCK)
        assert took(never, BLOCK / 2)
        assert elsewhere.events == never.events == []
        assert (never.status, never.attributes["asyncio.executor.job.outcome"]) == (0, "cancelled")


def test_what_is_neither_slow_nor_failed_has_no_span():
    """By default a job and a connection that took a moment are ordinary."""
    with traced(settings=SpanSettings()) as got:

        async def main() -> None:
            await asyncio.to_thread(len, "")
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            writer.close()
            server.close()
            with got.tracer.start_as_current_span("the program's own"):
                pass

        obsloop.run(main())
        assert [span.name for span in got.all] == ["the program's own"]


def test_the_active_span_of_the_loops_thread_is_not_theirs():
    """One that is active around the whole run is the parent of what its tasks do, whose contexts are copies."""
    with traced() as got:
        with got.tracer.start_as_current_span("around"):
            obsloop.run(asyncio.to_thread(len, ""))
        assert tree(got.all) == {"around": {"asyncio executor len": {}}}
        assert not trace.get_current_span().get_span_context().is_valid
