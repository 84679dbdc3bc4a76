"""Define the second dashboard, for details: each histogram as a heatmap, each loop and worker on its own."""

from overview import BY, NAME, WORKER_NAME, p99, rate
from panels import Panel, Row


def heat(title: str, metric: str, description: str = "", unit: str = "s", condition: str = "") -> Panel:
    """Return a heatmap of a histogram over time."""
    query = f"sum by (le) (rate(<{metric}:bucket>[$__rate_interval]))"
    return Panel(title, ((query, "{{le}}"),), description, "heatmap", unit, traces=True, condition=condition)


_JOB = "a job was handed to an executor"
_CHILD = "a subprocess has ended"

ROWS = (
    Row("The loop", (
        heat("Lag", "asyncio.eventloop.lag", "What a callback that became ready at a random moment would have waited."),
        heat("Schedule delay", "asyncio.eventloop.schedule.delay", "From ready to running."),
        heat("Callbacks", "asyncio.eventloop.callback.duration", "Their durations."),
        heat("Iterations", "asyncio.eventloop.iteration.duration", "From one poll to the next."),
        heat("Timer lateness", "asyncio.eventloop.timer.lateness"),
        heat("Ready queue", "asyncio.eventloop.ready.depth", "Callbacks in it at each iteration.", "short"),
        heat("Polls without a wait", "asyncio.eventloop.poll.duration"),
        heat("Blocks", "asyncio.eventloop.block.duration", condition="a loop has been blocked"),
        Panel("Schedule delay by kind, p99", ((p99("asyncio.eventloop.schedule.delay", "kind"), "{{kind}}"),)),
        Panel("Callbacks by kind", ((rate("asyncio.eventloop.callback.duration", "kind", ":count"), "{{kind}}"),),
              unit="cps"),
        Panel("Time by kind", ((rate("asyncio.eventloop.callback.duration", "kind", ":sum"), "{{kind}}"),),
              "Seconds in a second.", stacked=True),
        Panel("Utilization since the last scrape", (("<asyncio.eventloop.utilization>", WORKER_NAME),),
              unit="percentunit"),
        Panel("Iterations and events", (
                  (rate("asyncio.eventloop.iterations", BY), f"iterations {NAME}"),
                  (rate("asyncio.eventloop.events", BY), f"events {NAME}"),
              ), unit="cps"),
        Panel("Timers", (
                  (f"sum by ({BY}) (<asyncio.eventloop.timer.count>)", f"all {NAME}"),
                  (f"sum by ({BY}) (<asyncio.eventloop.timer.cancelled>)", f"cancelled {NAME}"),
              ), "Cancelled ones stay in the heap for a while.", unit="short"),
        Panel("Signals", ((rate("asyncio.signal.delivered", "signal"), "{{signal}}"),), unit="cps",
              condition="a signal with a handler arrived"),
    )),
    Row("Tasks", (
        heat("Duration", "asyncio.task.duration", "From creation to end.", condition="a task has ended"),
        heat("First step", "asyncio.task.first_step.delay"),
        Panel("Created", ((rate("asyncio.task.created", BY), NAME),), unit="cps"),
        Panel("Lints", (("sum by (lint) (increase(<asyncio.task.lint>[$__rate_interval]))", "{{lint}}"),),
              "Tasks with which something is wrong; the log and the service's /tasks name them.",
              unit="short", condition="a lint found something"),
    )),
    Row("Executors", (
        heat("Wait for a worker", "asyncio.executor.job.queue_duration", condition=_JOB),
        heat("Jobs", "asyncio.executor.job.duration", condition=_JOB),
        heat("Results that waited for the loop", "asyncio.executor.result.delay", condition=_JOB),
        Panel("Threads", (
                  ("sum by (executor) (<asyncio.executor.thread.count>)", "all {{executor}}"),
                  ("sum by (executor) (<asyncio.executor.thread.active>)", "with a job {{executor}}"),
              ), unit="short", condition=_JOB),
    )),
    Row("Connections", (
        heat("Name look-ups", "dns.lookup.duration", condition="a name was looked up"),
        heat("Connects", "asyncio.connect.duration", condition="a connection was tried"),
        heat("TLS handshakes", "asyncio.tls.handshake.duration", condition="a TLS handshake was tried"),
        Panel("Transports opened", ((rate("asyncio.transport.opened", "network_transport, role"),
                                     "{{network_transport}} {{role}}"),), unit="cps"),
        Panel("Pauses", ((rate("asyncio.transport.write_paused.episodes", BY), NAME),), unit="cps"),
        Panel("Accepted", ((rate("asyncio.server.accepted", "server_address"), "{{server_address}}"),), unit="cps",
              condition="a server has accepted a connection"),
    )),
    Row("Subprocesses and garbage", (
        Panel("Alive", ((f"sum by ({BY}) (<asyncio.subprocess.active>)", NAME),), unit="short"),
        heat("How long they lived", "asyncio.subprocess.duration", condition=_CHILD),
        heat("Dead until reaped", "asyncio.subprocess.reap.delay", condition=_CHILD),
        heat("Garbage collection", "cpython.gc.pause.duration"),
        Panel("Collections", ((rate("cpython.gc.collections", "job, instance, cpython_gc_generation"),
                               "{{instance}} generation {{cpython_gc_generation}}"),), unit="cps"),
    )),
)  # fmt: skip
