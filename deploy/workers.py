"""Several uvicorn workers behind one port, each with a port of its own for its metrics: what a scraper needs.

    python workers.py --workers 2 [--host 127.0.0.1] [--port 8000] [--metrics-port 9464] [--metrics-host HOST] app:app

`uvicorn --workers` serves as well, but its workers look the same from outside, and of those only the first gets
the port that was asked for. A loop's metrics belong to one process, so each worker is a target of its own: worker 0 is
at `--metrics-port`, worker 1 at the next port, and so on. The listening socket is one, as uvicorn's is. A worker that
ends takes the others with it, and the container platform starts them again: a target that is gone is not unseen.
`opentelemetry-instrument` in front of this would see only the parent; `--instrument` puts it in front of each.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

#: Seconds that workers have for their last requests after they were asked to end.
GRACE = 20.0
#: The descriptor of the listening socket, for the worker only.
LISTENER = "WORKERS_LISTENER"


def main() -> int:
    """As the parent: start the workers, stay until one ends or a signal comes. As a worker: serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("app", help="MODULE:NAME of the application")
    parser.add_argument("--workers", type=int, default=2, help="how many (default 2)")
    parser.add_argument("--host", default="127.0.0.1", help="of the application and of the metrics (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="the application's port (default 8000)")
    parser.add_argument("--metrics-port", type=int, default=9464, help="worker 0's; the others follow (default 9464)")
    parser.add_argument("--metrics-host", help="for /metrics and /healthz only; all paths are at 127.0.0.1 then")
    parser.add_argument("--instrument", action="store_true", help="run each worker under opentelemetry-instrument")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers: expected a whole number from 1 on")
    if LISTENER in os.environ:
        return serve(options.app, int(os.environ.pop(LISTENER)))
    return supervise(options)


def serve(app: str, descriptor: int) -> int:
    """One worker: uvicorn on our loop, on the socket that the parent listens on."""
    import uvicorn  # noqa: PLC0415 - the parent needs none

    sys.path.insert(0, os.getcwd())  # the application is looked for here, as uvicorn's own command does
    config = uvicorn.Config(app, loop="obsloop:new_event_loop", access_log=False)
    # Not uvicorn's `fd`: it takes whatever it is given for a Unix socket, and so would all metrics.
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=descriptor)])
    return 0 if server.started else 1


def supervise(options: argparse.Namespace) -> int:
    """Start the workers, pass a signal on to them, and end with them; 0 when that was asked for, else 1."""
    asked: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    with socket.create_server((options.host, options.port), backlog=2048) as listener:
        workers = [worker(options, index, listener) for index in range(options.workers)]
        print(f"workers: {options.app} at http://{options.host}:{listener.getsockname()[1]}", flush=True)
        for index, process in enumerate(workers):
            address = f"http://{options.metrics_host or options.host}:{options.metrics_port + index}/metrics"
            print(f"workers: worker {index} is process {process.pid}, its metrics are at {address}", flush=True)
        while not asked and all(process.poll() is None for process in workers):
            time.sleep(0.2)  # a signal's handler runs at once; that it was asked for is seen here
    ended = [index for index, process in enumerate(workers) if process.poll() is not None]
    if not asked:
        print(f"workers: worker {ended[0]} ended with {workers[ended[0]].returncode}; so do the others", flush=True)
    end(workers)
    return 0 if asked else 1


def worker(options: argparse.Namespace, index: int, listener: socket.socket) -> subprocess.Popen[bytes]:
    """A worker's process. It inherits the socket, and nothing else tells it from its siblings but its address."""
    descriptor = listener.fileno()
    address = figures_at(options.host, options.metrics_host, options.metrics_port + index)
    command = [sys.executable, os.path.abspath(__file__), options.app]
    if options.instrument:
        command = ["opentelemetry-instrument", *command]
    return subprocess.Popen(
        command, env=os.environ | {LISTENER: str(descriptor), "OBSLOOP_ADDRESS": address}, pass_fds=[descriptor]
    )


def figures_at(host: str, metrics_host: str | None, port: int) -> str:
    """The worker's OBSLOOP_ADDRESS. What names functions and files (/slow, /tasks) can stay on loopback."""
    if metrics_host is None:
        return f"{host}:{port}"
    if ":" in metrics_host and not metrics_host.startswith("["):
        metrics_host = f"[{metrics_host}]"  # an IPv6 address, as Kubernetes writes it
    return f"{metrics_host}:{port} /metrics /healthz, 127.0.0.1:{port}"


def end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, wait, and then insist."""
    for process in workers:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in workers:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
