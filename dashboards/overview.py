"""Define the first dashboard: answers in the order of the usual questions, over all loops that the variables choose."""

# ruff: noqa: E501  (a panel a paragraph)

import config
from panels import Panel, Row
from queries import LOOP

BY = f"job, instance, {LOOP}"
NAME = f"{{{{instance}}}} {{{{{LOOP}}}}}"


def p99(metric: str, by: str = "") -> str:
    """Return a query for the 99th percentile, over the dashboard's interval."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile(0.99, sum by ({grouped}) (rate(<{metric}:bucket>[$__rate_interval])))"


def rate(metric: str, by: str, inner: str = "") -> str:
    """Return a query for the sum of rates."""
    return f"sum by ({by}) (rate(<{metric}{inner}>[$__rate_interval]))"


_TIME = "asyncio.eventloop.time"
_BUSY = f"1 - {rate(_TIME, BY, '|state=' + chr(34) + 'idle' + chr(34))} / {rate(_TIME, BY)}"
_SLOW_ITERATIONS = (
    f"{rate('asyncio.eventloop.iteration.duration', BY, ':count')}"
    f" - {rate('asyncio.eventloop.iteration.duration', BY, f':bucket|le={chr(34)}{config.DELAY_BOUND:g}{chr(34)}')}"
)
_PAUSED = f"sum by ({BY}) (rate(<asyncio.transport.write_paused.time>[$__rate_interval]))"

# Colours that mean the same on each panel; grey needs no attention.
_GREY = "#808080"
_STATES = {"callback": "blue", "gc": "purple", "idle": _GREY, "overhead": "red", "poll": "yellow"}
_CAUSES = {"cpu": "orange", "gc": "purple", "gil": "yellow", "off_cpu": "blue", "syscall": "red", "unknown": _GREY}
_OUTCOMES = {"ok": "green", "error": "red", "cancelled": "yellow", "abandoned": "orange"}
_CLOSINGS = {"local": "green", "eof": "blue", "reset": "yellow", "aborted": "orange", "error": "red"}
# A table for functions: their names are long, and the busiest matters most.
_RANKED = {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean"],
                      "sortBy": "Mean", "sortDesc": True}}  # fmt: skip

ROWS = (
    Row("Is the loop healthy?", (
        Panel("Utilization", ((f"max({_BUSY})", "busiest loop"),), "The busiest loop's share of time that is not idle.",
              "stat", "percentunit", 8, 4, limit=config.SATURATED.value, alert="AsyncioLoopSaturated"),
        Panel("Blocked now", (("max(<asyncio.eventloop.blocked.time>)", "longest"),),
              "How long the longest callback that runs now has lasted.", "stat", "s", 8, 4,
              limit=config.BLOCKED.value, alert="AsyncioLoopBlocked"),
        Panel("Schedule delay, p99", ((p99("asyncio.eventloop.schedule.delay"), "p99"),),
              "From ready to running: everything on the loop waits so long.", "stat", "s", 8, 4,
              limit=config.DELAY_BOUND, alert="AsyncioScheduleDelayHigh"),
        Panel("Utilization by loop", ((_BUSY, NAME),), "Near 1, the loop has no time left and its queue grows.",
              unit="percentunit", limit=config.SATURATED.value, alert="AsyncioLoopSaturated"),
        Panel("Where the time goes", ((rate(_TIME, "state"), "{{state}}"),),
              "Seconds in a second; the states add up to the number of loops that run.", stacked=True,
              colours=_STATES),
        Panel("Lag by loop, p99", ((p99("asyncio.eventloop.lag", BY), NAME),),
              "What a callback that became ready at a random moment would have waited: what clients wait."),
        Panel("Schedule delay by loop, p99", ((p99("asyncio.eventloop.schedule.delay", BY), NAME),),
              limit=config.DELAY_BOUND, alert="AsyncioScheduleDelayHigh", traces=True),
    )),
    Row("What blocked it?", (
        Panel("Episodes by cause", ((rate("asyncio.eventloop.block.episodes", "cause"), "{{cause}}"),),
              "Blocks a second. cpu: it computed; syscall: a blocking call; gil: another thread held the interpreter;"
              " off_cpu: the machine was busy.", unit="cps", stacked=True, alert="AsyncioLoopBlocked", traces=True,
              colours=_CAUSES),
        Panel("Time blocked by cause", ((rate("asyncio.eventloop.block.duration", "cause", ":sum"), "{{cause}}"),),
              "Seconds in a second.", stacked=True, traces=True, colours=_CAUSES,
              condition="a loop has been blocked"),
        Panel("Time blocked by culprit", (
                  ("topk(10, sum by (code_function_name) (rate(<asyncio.eventloop.block.time>[$__rate_interval])))",
                   "{{code_function_name}}"),
              ), "The program's own functions that blocked it.", alert="AsyncioLoopBlocked", traces=True,
              condition="a loop has been blocked", options=_RANKED),
        Panel("Slow iterations", ((_SLOW_ITERATIONS, NAME),),
              f"Iterations over {config.DELAY_BOUND:g} s, a second: many short callbacks block like one long one.",
              unit="cps"),
        Panel("Slow callbacks by function", (
                  ("topk(20, sum by (code_function_name) (increase(<asyncio.eventloop.callback.slow>[$__range])))", ""),
              ), "Within the dashboard's time range. The service's /slow has file and line.", "table", "short", 10,
              alert="AsyncioLoopBlocked", traces=True, condition="a callback was slow",
              headings={"code_function_name": "Function", "Value": "Times"}),
        Panel("Time by coroutine", (
                  ("topk(10, sum by (code_function_name) (rate(<asyncio.eventloop.callback.time>[$__rate_interval])))",
                   "{{code_function_name}}"),
              ), "The coroutines that the loop spends its time on.", alert="AsyncioLoopSaturated", options=_RANKED),
        Panel("Garbage collection, p99 pause", ((p99("cpython.gc.pause.duration", "cpython_gc_generation"),
                                                 "generation {{cpython_gc_generation}}"),),
              "Stops every thread.", width=6, condition="garbage was collected"),
    )),
    Row("What waits?", (
        Panel("Ready queue, p99 depth", ((p99("asyncio.eventloop.ready.depth", BY), NAME),), "Callbacks in the queue.",
              unit="short"),
        Panel("Timer lateness, p99", ((p99("asyncio.eventloop.timer.lateness", BY), NAME),), limit=config.DELAY_BOUND),
        Panel("First step of a task, p99", ((p99("asyncio.task.first_step.delay", BY), NAME),),
              "From creation to the first instruction."),
        Panel("Executor queue", (("sum by (executor) (<asyncio.executor.queue.length>)", "{{executor}}"),),
              "Jobs that no worker has begun.", unit="short", alert="AsyncioExecutorStarved",
              condition="a job was handed to an executor"),
        Panel("Oldest job", (("max by (executor) (<asyncio.executor.oldest_job.age>)", "{{executor}}"),),
              "If jobs queue too, the pool is starved.", limit=config.STARVED.value, alert="AsyncioExecutorStarved",
              condition="a job was handed to an executor"),
        Panel("Job's wait for a worker, p99", ((p99("asyncio.executor.job.queue_duration", "executor"), "{{executor}}"),),
              alert="AsyncioExecutorStarved", condition="a job was handed to an executor"),
        Panel("Live tasks", ((f"sum by ({BY}) (<asyncio.task.active>)", NAME),), unit="short",
              alert="AsyncioTasksLeaking"),
        Panel("Oldest task", ((f"max by ({BY}) (<asyncio.task.oldest.age>)", NAME),), alert="AsyncioTasksLeaking"),
        Panel("Events that waited already", ((rate("asyncio.eventloop.events_waiting", BY), NAME),),
              "File descriptors that were ready before the loop polled: it is behind.", unit="cps"),
    )),
    Row("What does it serve?", (
        Panel("Open connections of servers", (("sum by (server_address) (<asyncio.server.connections.active>)",
                                               "{{server_address}}"),), unit="short", condition="a server listens"),
        Panel("Open transports", (("sum by (network_transport, role) (<asyncio.transport.active>)",
                                   "{{network_transport}} {{role}}"),), unit="short"),
        Panel("Bytes", ((rate("asyncio.transport.io", "direction, network_transport"),
                         "{{direction}} {{network_transport}}"),), "Bytes that the kernel took or gave.", unit="Bps"),
        Panel("Transports paused", ((_PAUSED, NAME),), "How many at once, on average: their peers do not read.", unit="short",
              alert="AsyncioTransportsPaused"),
        Panel("Write buffers", ((f"sum by ({BY}) (<asyncio.transport.write_buffer.usage>)", NAME),),
              "Bytes written that the kernel has not taken yet.", unit="bytes", alert="AsyncioTransportsPaused"),
        Panel("Set-up of connections, p99", (
                  (p99("dns.lookup.duration"), "name look-up"),
                  (p99("asyncio.connect.duration"), "connect"),
                  (p99("asyncio.tls.handshake.duration", "role"), "TLS, {{role}}"),
              ), condition="names were looked up, connections made, TLS spoken"),
    )),
    Row("What fails?", (
        Panel("Uncaught errors", ((rate("asyncio.eventloop.exceptions", "error_type, origin"),
                                             "{{error_type}} in a {{origin}}"),), unit="cps",
              limit=config.EXCEPTIONS.value, alert="AsyncioExceptionsRising",
              condition="an error reached the loop's exception handler"),
        Panel("Tasks that did not end well", ((rate("asyncio.task.finished", "outcome", '|outcome!="ok"'), "{{outcome}}"),),
              "Without tasks that ended well. A cancelled task is no failure; an abandoned one is.", unit="cps",
              colours=_OUTCOMES, condition="a task has failed, or was cancelled"),
        Panel("Transports closed, by reason", ((rate("asyncio.transport.closed", "reason"), "{{reason}}"),), unit="cps",
              colours=_CLOSINGS),
        Panel("Connects and look-ups that failed", (
                  ('sum by (error_type) (rate(<asyncio.connect.duration:count|error_type!="">[$__rate_interval]))',
                   "connect: {{error_type}}"),
                  ('sum by (error_type) (rate(<asyncio.tls.handshake.duration:count|error_type!="">[$__rate_interval]))',
                   "TLS: {{error_type}}"),
                  ('sum by (error_type) (rate(<dns.lookup.duration:count|error_type!="">[$__rate_interval]))',
                   "look-up: {{error_type}}"),
              ), unit="cps", condition="a connect, a handshake and a look-up have failed"),
        Panel("Accepts that failed", ((rate("asyncio.server.accept.errors", "server_address, error_type"),
                                       "{{server_address}} {{error_type}}"),), "EMFILE: too many open files.",
              unit="cps", condition="an accept failed"),
        Panel("Jobs of executors by outcome", ((rate("asyncio.executor.job.duration", "outcome", ":count"), "{{outcome}}"),),
              unit="cps", colours=_OUTCOMES, condition="a job was handed to an executor"),
    )),
    Row("What does obsloop cost?", (
        Panel("obsloop's own time", ((rate("obsloop.self.time", "what"), "{{what}}"),),
              "Seconds in a second, off the loop.", stacked=True),
        Panel("Lost metrics", ((rate("obsloop.dropped", "what"), "{{what}}"),), unit="cps",
              alert="AsyncioObserverDropping"),
        Panel("Disabled hooks", (("sum by (what) (<obsloop.instrument.disabled>)", "{{what}}"),), unit="short",
              alert="AsyncioObserverDisabled", condition="a hook of an instrument has raised"),
    )),
)  # fmt: skip
