"""Define the first dashboard: answers in the order of the usual questions, over all loops that the variables choose."""

# ruff: noqa: E501  (a panel a paragraph)

import config
from panels import Column, Panel, Row
from queries import LOOP, WORKER

from obsloop.metrics.catalog import REQUEST_STATES

SITE = "code_function_name"
BY = f"job, instance, {LOOP}"
NAME = f"{{{{instance}}}} {{{{{LOOP}}}}}"
# Of a process that is in no group, the label is missing, and the line is the same as by loop.
BY_WORKER = f"{BY}, {WORKER}"
WORKER_NAME = f"{NAME} {{{{{WORKER}}}}}"


def p99(metric: str, by: str = "") -> str:
    """Return a query for the 99th percentile, over the dashboard's interval."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile(0.99, sum by ({grouped}) (rate(<{metric}:bucket>[$__rate_interval])))"


def rate(metric: str, by: str, inner: str = "") -> str:
    """Return a query for the sum of rates."""
    return f"sum by ({by}) (rate(<{metric}{inner}>[$__rate_interval]))"


_TIME = "asyncio.eventloop.time"
_BUSY = f"1 - {rate(_TIME, BY, '|state=' + chr(34) + 'idle' + chr(34))} / {rate(_TIME, BY)}"
_WORKER_BUSY = _BUSY.replace(BY, BY_WORKER)
_LATE = (
    f"1 - {rate('asyncio.eventloop.lag', BY_WORKER, f':bucket|le={chr(34)}{config.LAG_BOUND:g}{chr(34)}')}"
    f" / ({rate('asyncio.eventloop.lag', BY_WORKER, ':count')} > 0)"
)
# 0, and not nothing, for a loop that has not been blocked yet.
_BLOCKED = f"({rate('asyncio.eventloop.block.time', BY)} or 0 * {rate(_TIME, BY)}) / ({rate(_TIME, BY)} > 0)"
_SLOW_ITERATIONS = (
    f"{rate('asyncio.eventloop.iteration.duration', BY, ':count')}"
    f" - {rate('asyncio.eventloop.iteration.duration', BY, f':bucket|le={chr(34)}{config.LAG_BOUND:g}{chr(34)}')}"
)
_PER_REQUEST = (
    'sum by (http_route) (increase(<asyncio.request.time|state="{state}">[$__range]))'
    " / (sum by (http_route) (increase(<asyncio.request.count>[$__range])) > 0)"
)
_PAUSED = f"sum by ({BY}) (rate(<asyncio.transport.write_paused.time>[$__rate_interval]))"


def _grown(metric: str) -> str:
    """Return a query for what a counter gained by function, within the dashboard's time range.

    `increase` does not see the value with which a series begins, but one long block may be all that a function did.
    """
    gained = f"increase(<{metric}>[$__range])"
    begun = f"(min_over_time(<{metric}>[$__range]) unless <{metric}> offset $__range)"
    return f"sum by ({SITE}) ({gained} + {begun} or {gained})"


_TOP_BLOCKS = f"topk(10, {_grown('asyncio.eventloop.block.time')})"

_TOP_ROUTES = "topk(20, sum by (http_route) (increase(<asyncio.request.count>[$__range])))"


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
    # Eight panels, 21 units high with their heading: what a screen of 1920 x 1080 shows below Grafana's own bars.
    Row("Is the loop healthy?", (
        Panel("Time blocked", ((f"max({_BLOCKED})", "most blocked loop"),),
              "The share of its time in which the loop was in a slow callback. It could serve nothing else.",
              "stat", "percentunit", 6, 4, limit=config.TIME_BLOCKED.value, alert="AsyncioTimeBlocked", decimals=1),
        Panel("Lag, p99", ((f"max({p99('asyncio.eventloop.lag', BY)})", "slowest loop"),),
              "What a request that arrives at a random moment waits before the loop looks at it.",
              "stat", "s", 6, 4, limit=config.LAG_BOUND, alert="AsyncioLagHigh"),
        Panel("Utilization", ((f"max({_WORKER_BUSY})", "busiest loop"),), "The busiest loop's share of time that is not idle.",
              "stat", "percentunit", 6, 4, limit=config.SATURATED.value, alert="AsyncioLoopSaturated", decimals=0),
        Panel("Blocked now", (("max(<asyncio.eventloop.blocked.time>)", "longest"),),
              "How long the longest callback that runs now has lasted.", "stat", "s", 6, 4,
              limit=config.BLOCKED.value, alert="AsyncioLoopBlocked"),
        Panel("Top culprits", (
                  (_TOP_BLOCKS, "seconds"),
                  (f"{_grown('asyncio.eventloop.callback.slow')} and {_TOP_BLOCKS}", "times"),
                  (f"max by ({SITE}) (max_over_time(<asyncio.eventloop.block.longest>[$__range])) and {_TOP_BLOCKS}",
                   "worst"),
              ), "The program's own functions that blocked the loop, within the dashboard's time range. The instance's"
              " own page has their files and lines.",
              "table", "s", 12, alert="AsyncioTimeBlocked", traces=True, condition="a loop has been blocked",
              columns=(Column(SITE, "Function"), Column("Value #A", "Seconds", "s"),
                       Column("Value #B", "Times", "short"), Column("Value #C", "Worst", "s"))),
        Panel("Time blocked by loop", ((_BLOCKED, NAME),),
              "The share of arrivals that meet a blocked loop. Click a line for the instance's own page.",
              unit="percentunit", width=12, limit=config.TIME_BLOCKED.value, alert="AsyncioTimeBlocked", traces=True),
        Panel("Lag by loop, p99", ((p99("asyncio.eventloop.lag", BY), NAME),),
              "What users wait for the loop. Click a line for the instance's own page.",
              width=12, limit=config.LAG_BOUND, alert="AsyncioLagHigh", traces=True),
        Panel("Utilization by loop", ((_BUSY, NAME),), "Near 1, the loop has no time left and its queue grows.",
              unit="percentunit", width=12, limit=config.SATURATED.value, alert="AsyncioLoopSaturated"),
    )),
    Row("Which worker is it?", (
        Panel("Late arrivals by worker", ((_LATE, WORKER_NAME),),
              f"The share of arrivals that wait longer than {config.LAG_BOUND:g} s for the worker's loop: nearly the share"
              " of time in which it is blocked. Without a number, a process is in no group.", unit="percentunit",
              alert="AsyncioLagHigh", traces=True),
        Panel("Lag by worker, p99", ((p99("asyncio.eventloop.lag", BY_WORKER), WORKER_NAME),),
              "What the clients of each worker wait for its loop.", limit=config.LAG_BOUND, alert="AsyncioLagHigh"),
        Panel("Utilization by worker", ((_WORKER_BUSY, WORKER_NAME),),
              "One at 1 and others near 0: its connections stay open and the others get none.", unit="percentunit",
              limit=config.SATURATED.value, alert="AsyncioLoopSaturated"),
        Panel("Blocked now, by worker", ((f"max by ({BY_WORKER}) (<asyncio.eventloop.blocked.time>)", WORKER_NAME),),
              "How long its present callback has lasted.", limit=config.BLOCKED.value, alert="AsyncioLoopBlocked"),
        Panel("Live tasks by worker", ((f"sum by ({BY_WORKER}) (<asyncio.task.active>)", WORKER_NAME),), unit="short",
              alert="AsyncioTasksLeaking"),
        Panel("Oldest task by worker", ((f"max by ({BY_WORKER}) (<asyncio.task.oldest.age>)", WORKER_NAME),),
              alert="AsyncioTasksLeaking"),
    )),
    Row("What blocked it?", (
        Panel("Time blocked by culprit", (
                  (f"topk(10, sum by ({SITE}) (rate(<asyncio.eventloop.block.time>[$__rate_interval])))",
                   f"{{{{{SITE}}}}}"),
              ), "The program's own functions that blocked it.", alert="AsyncioTimeBlocked", traces=True,
              condition="a loop has been blocked", options=_RANKED),
        Panel("Episodes by cause", ((rate("asyncio.eventloop.block.episodes", "cause"), "{{cause}}"),),
              "Blocks a second. cpu: it computed; syscall: a blocking call; gil: another thread held the interpreter;"
              " off_cpu: the machine was busy.", unit="cps", stacked=True, alert="AsyncioLoopBlocked", traces=True,
              colours=_CAUSES),
        Panel("Time blocked by cause", ((rate("asyncio.eventloop.block.duration", "cause", ":sum"), "{{cause}}"),),
              "Seconds in a second.", stacked=True, traces=True, colours=_CAUSES,
              condition="a loop has been blocked"),
        Panel("Slow iterations", ((_SLOW_ITERATIONS, NAME),),
              f"Iterations over {config.LAG_BOUND:g} s, a second: many short callbacks block like one long one.",
              unit="cps"),
        Panel("Time by coroutine", (
                  ("topk(10, sum by (code_function_name) (rate(<asyncio.eventloop.callback.time>[$__rate_interval])))",
                   "{{code_function_name}}"),
              ), "The coroutines that the loop spends its time on.", alert="AsyncioLoopSaturated", options=_RANKED),
        Panel("Garbage collection, p99 pause", ((p99("cpython.gc.pause.duration", "cpython_gc_generation"),
                                                 "generation {{cpython_gc_generation}}"),),
              "Stops every thread.", condition="garbage was collected"),
    )),
    Row("What do the routes take?", (
        Panel("Time of requests by route", (
                  (_TOP_ROUTES, "requests"),
                  *((f"{_PER_REQUEST.format(state=state)} and {_TOP_ROUTES}", state) for state in REQUEST_STATES),
              ), "Within the dashboard's time range; times are means of a request. running: on the loop; waiting: for"
              " the loop; suspended: for anything else.", "table", "s", 12,
              condition="a request through obsloop.asgi.Middleware has ended",
              columns=(Column("http_route", "Route"), Column("Value #A", "Requests", "short"),
                       *(Column(f"Value #{letter}", state.capitalize(), "s")
                         for letter, state in zip("BCD", REQUEST_STATES, strict=True)))),
        Panel("Time on the loop by route", (
                  ("topk(10, sum by (http_route) (rate(<asyncio.request.time|state=\"running\">[$__rate_interval])))",
                   "{{http_route}}"),
              ), "Seconds in a second: the routes that keep the loop busy.", width=12, options=_RANKED,
              condition="a request through obsloop.asgi.Middleware has ended"),
    )),
    Row("What waits?", (
        Panel("Where the time goes", ((rate(_TIME, "state"), "{{state}}"),),
              "Seconds in a second; the states add up to the number of loops that run.", stacked=True,
              colours=_STATES),
        Panel("Schedule delay by loop, p99", ((p99("asyncio.eventloop.schedule.delay", BY), NAME),),
              "From ready to running, of callbacks. Few become ready in a block, so the lag can be far longer.",
              limit=config.LAG_BOUND, traces=True),
        Panel("Ready queue, p99 depth", ((p99("asyncio.eventloop.ready.depth", BY), NAME),), "Callbacks in the queue.",
              unit="short"),
        Panel("Timer lateness, p99", ((p99("asyncio.eventloop.timer.lateness", BY), NAME),), limit=config.LAG_BOUND),
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
