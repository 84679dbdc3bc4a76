"""THE list of metrics: name, unit, meaning and labels of everything that obsloop measures.

Exporters, the reference page, the dashboards and the tests are derived from it. Only metrics of this list are exported.
Names follow OpenTelemetry's style. It has no convention for asyncio yet, so they mirror ``nodejs.eventloop.*`` and
``cpython.gc.*``. A metric is added here when some code measures it, not before.
"""

from obsloop.events import CAUSES, CLOSINGS, DIRECTIONS, EXITS, LINTS, OUTCOMES, ROLES
from obsloop.instruments import HOOKS
from obsloop.metrics.counters import FINISHES, KINDS, NETWORKS
from obsloop.metrics.metric import Label, Metric

MAX_LOOP_NAMES = 8
OTHER = "_OTHER"
"""The label value for all values that do not fit into a label's bound."""

LOOP_NAME_LABEL = "asyncio.eventloop.name"
REQUEST_STATES = ("running", "waiting", "suspended")
STATES = ("idle", "poll", "callback", "gc", "overhead")
GENERATIONS = ("0", "1", "2")
SELF_TIME = ("snapshot", "scrape", "export", "watchdog", "tasks", "profile")
MAX_SITES = 100
MAX_ROUTES = 100
MAX_ERROR_TYPES = 50
ORIGINS = ("callback", "task", "future", "transport", "server", "other")
"""Where an uncaught error came from."""
MAX_EXECUTORS = 8
MAX_RESOLVER_ERRORS = 20
MAX_SIGNALS = 32
MAX_CONNECTION_ERRORS = 20
MAX_SERVER_ADDRESSES = 8
NETWORK_TYPES = ("ipv4", "ipv6", "unix", "other")

# Default bounds of buckets. Each bound costs a server one series for each set of labels of each loop. So a histogram
# has bounds only where its values can be. tests/dashboards check the total number of series.
SHORT = (1e-3, 5e-3, 0.025, 0.1, 0.25, 1.0, 5.0)
"""For durations that ought to be short, because other code waits meanwhile. asyncio calls 0.1 s slow."""
FEW = (5e-3, 0.025, 0.1, 0.25, 1.0)
"""The same for the level ``basic``."""
LAG = (1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""For what users wait."""
LONG = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0)
"""For durations that may have any length: tasks, jobs, subprocesses."""
BLOCKED = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""For blocks; shorter ones do not count as blocks."""
DEPTH = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0, 10000.0)
"""For counts."""

_SITE = Label("code.function.name", bound=MAX_SITES)
_ERROR_TYPE = Label("error.type", bound=MAX_ERROR_TYPES)
_ROUTE = Label("http.route", bound=MAX_ROUTES)
EXECUTOR = Label("executor", bound=MAX_EXECUTORS)
_SIGNAL = Label("signal", bound=MAX_SIGNALS)
SERVER_ADDRESS = Label("server.address", bound=MAX_SERVER_ADDRESSES)
BOUNDED = (_SITE, _ROUTE, _ERROR_TYPE, EXECUTOR, _SIGNAL, SERVER_ADDRESS)
"""The labels whose values come from the program."""
DROPPED = (
    LOOP_NAME_LABEL,
    "torn_snapshot",
    "coroutine",
    "export",
    "profile",
    "span",
    "task_creation",
    "task_cancellation",
    "task_lint",
    *(label.name for label in BOUNDED),
)
_KIND = Label("kind", tuple(sorted(KINDS)))
_CAUSE = Label("cause", CAUSES)
_OUTCOME = Label("outcome", OUTCOMES)
_NETWORK = Label("network.transport", NETWORKS)
_ROLE = Label("role", ROLES)
_GENERATION = Label("cpython.gc.generation", GENERATIONS)

METRICS: tuple[Metric, ...] = (
    Metric(
        "asyncio.eventloop.time", "counter", "s",
        "Time that the loop ran, by state. The states add up to it: idle waits for events, poll asks for events without"
        " waiting, callback runs callbacks, gc collects garbage in the loop's thread, overhead is the rest.",
        (Label("state", STATES),), level="basic", from_start=True, per_worker=True,
    ),
    Metric(
        "asyncio.eventloop.utilization", "gauge", "1",
        "Share of its running time in which the loop was not idle, since the previous reading by the same reader.",
        level="basic", per_worker=True,
    ),
    Metric("asyncio.eventloop.iterations", "counter", "{iteration}", "Iterations of the loop.", level="basic"),
    Metric("asyncio.eventloop.events", "counter", "{event}", "File descriptors that polls returned as ready."),
    Metric(
        "asyncio.eventloop.events_waiting", "counter", "{event}",
        "Events that were already waiting when the loop polled with timeout 0: the loop was behind.",
    ),
    Metric(
        "asyncio.eventloop.poll.duration", "histogram", "s",
        "Duration of polls with timeout 0, from the call of select to its return. Polls that may wait are idle time.",
        buckets=SHORT,
    ),
    Metric(
        "asyncio.eventloop.iteration.duration", "histogram", "s",
        "Duration of iterations, from the return of select to its next call.", buckets=SHORT,
    ),
    Metric(
        "asyncio.eventloop.lag", "histogram", "s",
        "How long a callback that became ready at a random moment would have waited until the loop polled. One value"
        " stands for a millisecond of running time; the present iteration is included.", buckets=LAG,
        level="basic", per_worker=True, basic_buckets=(0.01, 0.1, 0.25, 1.0, 2.5),
    ),
    Metric(
        "asyncio.eventloop.schedule.delay", "histogram", "s",
        "How long callbacks waited, from ready (scheduled, returned by a poll, or due) to their first instruction.",
        (_KIND,), buckets=SHORT, level="basic", basic_buckets=FEW,
    ),
    Metric(
        "asyncio.eventloop.callback.duration", "histogram", "s",
        "Duration of callbacks, from the first instruction (the end of the one before) to the return.",
        (_KIND,), buckets=SHORT,
    ),
    Metric(
        "asyncio.eventloop.callback.slow", "counter", "{callback}",
        "Callbacks that took slow_callback_duration or longer, by culprit: the program's innermost function that the"
        " watchdog saw, else the coroutine or function that the loop called.",
        (_SITE,), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.eventloop.block.episodes", "counter", "{episode}",
        "How often the loop was blocked, by cause. A block is an iteration that took too long, or in which one callback"
        " did.",
        (_CAUSE,), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.eventloop.block.duration", "histogram", "s",
        "How long the loop was blocked, from the return of select to its next call, by cause.", (_CAUSE,),
        labelled=True, buckets=BLOCKED,
    ),
    Metric(
        "asyncio.eventloop.block.time", "counter", "s",
        "Time that the loop was blocked, by culprit and cause. An iteration's time is shared out among the culprits of"
        " its slow callbacks: the program's innermost functions that the watchdog saw.",
        (_SITE, _CAUSE), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.eventloop.block.longest", "gauge", "s",
        "The longest time that a culprit blocked the loop at once, in the last two to four minutes; 0 if it did not."
        " The highest value of a day is the longest block of the day.",
        (_SITE,), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.request.count", "counter", "{request}",
        "Web requests and WebSocket connections that have ended, by route; only with obsloop.asgi.Middleware.",
        (_ROUTE,), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.request.time", "counter", "s",
        "Time of web requests by route: running on the loop, waiting for the loop, or suspended, that is, waiting for"
        " something else; only with obsloop.asgi.Middleware.",
        (_ROUTE, Label("state", REQUEST_STATES)), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.eventloop.exceptions", "counter", "{exception}",
        "Calls of the loop's exception handler, that is, uncaught errors, by the exception's class and by origin.",
        (_ERROR_TYPE, Label("origin", ORIGINS)), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.eventloop.callback.time", "counter", "s",
        "Time that task steps took, by the task's coroutine. The busiest coroutines are named. In the pure core this is"
        " an estimate from one step in sixteen.",
        (Label("code.function.name", bound=MAX_SITES),),
    ),
    Metric(
        "asyncio.eventloop.ready.depth", "histogram", "{handle}", "Handles in the ready queue at each iteration.",
        buckets=DEPTH,
    ),
    Metric("asyncio.eventloop.timer.count", "updowncounter", "{timer}", "Timers in the heap, cancelled ones included."),
    Metric("asyncio.eventloop.timer.cancelled", "updowncounter", "{timer}", "Cancelled timers still in the heap."),
    Metric(
        "asyncio.eventloop.timer.lateness", "histogram", "s",
        "How late timers ran, from the time they were due to their first instruction.", buckets=SHORT,
    ),
    Metric(
        "asyncio.eventloop.blocked.time", "gauge", "s",
        "How long the loop has been in its current callback, computed at the reading; 0 if it waits or does not run.",
        level="basic", per_worker=True,
    ),
    Metric(
        "asyncio.task.created", "counter", "{task}",
        "Tasks that were created. A task from before the loop was observed counts once it has had a step since. The"
        " pure core counts tasks, here and as active, from their first step on.",
        level="basic",
    ),
    Metric(
        "asyncio.task.finished", "counter", "{task}",
        "Tasks that have ended, by outcome. abandoned: destroyed while pending, or still pending when their loop was"
        " closed.",
        (Label("outcome", FINISHES),), level="basic",
    ),
    Metric(
        "asyncio.task.active", "updowncounter", "{task}", "Tasks that are not done.", level="basic", per_worker=True,
    ),
    Metric(
        "asyncio.task.oldest.age", "gauge", "s",
        "How long ago the oldest task that is not done was created, computed at the reading; 0 if there is none.",
        level="basic", per_worker=True,
    ),
    Metric(
        "asyncio.task.first_step.delay", "histogram", "s",
        "How long tasks waited for their first step, from creation to its first instruction. Eager tasks, which begin"
        " at once, are not included.", buckets=SHORT,
    ),
    Metric(
        "asyncio.task.duration", "histogram", "s", "How long tasks took, from creation to their end.", buckets=LONG,
    ),
    Metric(
        "asyncio.task.lint", "counter", "{finding}",
        "Tasks with something wrong. never_yields: runs for too long without letting others run, or only yields with"
        " sleep(0); never_woken: waits for a future that nothing can complete; growing: ever more tasks of one kind;"
        " exception_never_retrieved: failed, and its exception was never retrieved; executor_starved: its job waits too"
        " long for a worker of an executor.",
        (Label("lint", LINTS),), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.executor.queue.length", "updowncounter", "{job}",
        "Jobs that the loop has submitted to an executor and no worker has begun. For a process pool, jobs for which it"
        " has no process. The executor anyio stands for the threads of anyio, in which FastAPI's def routes run; its"
        " queue is that of anyio's default limiter.",
        (EXECUTOR,), level="basic",
    ),
    Metric(
        "asyncio.executor.thread.count", "updowncounter", "{thread}",
        "Threads of the executors that the loop uses; for a process pool, its processes.", (EXECUTOR,),
        level="basic",
    ),
    Metric(
        "asyncio.executor.thread.active", "updowncounter", "{thread}",
        "Threads that run a job of the loop; for a process pool, the processes for which it has jobs.", (EXECUTOR,),
        level="basic",
    ),
    Metric(
        "asyncio.executor.job.queue_duration", "histogram", "s",
        "How long jobs waited for a worker, from submission to their beginning, or to their cancellation if they never"
        " began.",
        (EXECUTOR, _OUTCOME), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.executor.job.duration", "histogram", "s",
        "How long jobs ran, from beginning to end in the worker. In process pools, where the beginning is not known,"
        " from submission.",
        (EXECUTOR, _OUTCOME), labelled=True, buckets=LONG,
    ),
    Metric(
        "asyncio.executor.result.delay", "histogram", "s",
        "How long results waited for the loop, from the job's end to the beginning of the callback that delivers it.",
        (EXECUTOR, _OUTCOME), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.executor.oldest_job.age", "gauge", "s",
        "How long ago the oldest job that has not ended was submitted, computed at the reading; 0 if there is none. For"
        " anyio only jobs that wait for a thread count, and only since the first sample in which each was seen.",
        (EXECUTOR,), level="basic",
    ),
    Metric(
        "asyncio.transport.active", "updowncounter", "{transport}",
        "Transports that are open. A datagram socket without a remote address is a server; pipes are clients.",
        (_NETWORK, _ROLE), level="basic", counted_by="asyncio.transport.opened",
    ),
    Metric(
        "asyncio.transport.opened", "counter", "{transport}", "Transports that were made.", (_NETWORK, _ROLE),
        labelled=True,
    ),
    Metric(
        "asyncio.transport.closed", "counter", "{transport}",
        "Transports that were closed, by reason. eof: the peer closed first; local: this side did; reset: the peer"
        " reset the connection; error: another error; aborted: by abort(), or never closed by the program.",
        (_NETWORK, Label("reason", CLOSINGS)), labelled=True,
    ),
    Metric(
        "asyncio.transport.io", "counter", "By",
        "Bytes that transports read from and wrote to the kernel; with TLS, those of its records.",
        (Label("direction", DIRECTIONS), _NETWORK), level="basic",
    ),
    Metric(
        "asyncio.transport.write_buffer.usage", "updowncounter", "By",
        "Bytes in the write buffers of all transports: written by the program, not yet taken by the kernel.",
    ),
    Metric(
        "asyncio.transport.write_paused.time", "counter", "s",
        "Time that transports paused their protocols, from pause_writing to resume_writing, because peers do not read.",
        level="basic",
    ),
    Metric(
        "asyncio.transport.write_paused.episodes", "counter", "{episode}",
        "How often a transport paused its protocol because its write buffer passed the high-water mark.", labelled=True,
    ),
    Metric(
        "dns.lookup.duration", "histogram", "s",
        "How long the resolver took for getaddrinfo and getnameinfo, from beginning to end in the worker, without the"
        " wait in the executor's queue. The error is the resolver's (EAI_NONAME), or the exception's class; empty if it"
        " did not fail.",
        (Label("error.type", bound=MAX_RESOLVER_ERRORS),), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.connect.duration", "histogram", "s",
        "How long each attempt to connect a stream socket took, from connect until it was connected, refused, timed out"
        " or given up; look-ups of names come before. The error is the exception's class, or the system's name"
        " (ENETUNREACH) if the class is only OSError. It is asyncio.exceptions.CancelledError for an attempt that was"
        " given up, because the program's time-out passed or another address was faster. Empty if it did not fail.",
        (Label("network.type", NETWORK_TYPES), Label("error.type", bound=MAX_CONNECTION_ERRORS)), labelled=True,
        buckets=SHORT,
    ),
    Metric(
        "asyncio.tls.handshake.duration", "histogram", "s",
        "How long TLS handshakes took, from the established connection to the end of the handshake. The error is the"
        " exception's class: ssl.SSLCertVerificationError; TimeoutError for asyncio's own handshake time-out;"
        " asyncio.exceptions.CancelledError if the program gave it up. Empty if it did not fail.",
        (_ROLE, Label("error.type", bound=MAX_CONNECTION_ERRORS)), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.server.accepted", "counter", "{connection}",
        "Connections that servers accepted, by the address on which they listen.", (SERVER_ADDRESS,), labelled=True,
        level="basic",
    ),
    Metric(
        "asyncio.server.accept.errors", "counter", "{error}",
        "Accepts that failed, by the listening address and the system's name for the error; EMFILE is too many open"
        " files.",
        (SERVER_ADDRESS, Label("error.type", bound=MAX_CONNECTION_ERRORS)), labelled=True, level="basic",
    ),
    Metric(
        "asyncio.server.connections.active", "updowncounter", "{connection}",
        "Connections that servers have accepted and whose transports are open, by the listening address.",
        (SERVER_ADDRESS,), level="basic",
    ),
    Metric(
        "asyncio.subprocess.active", "updowncounter", "{process}",
        "Subprocesses that the loop has started and not reaped.",
    ),
    Metric(
        "asyncio.subprocess.duration", "histogram", "s",
        "How long subprocesses lived, from just before the fork until they were reaped, by exit. ok: status 0; error:"
        " another status; signal: ended by a signal.",
        (Label("exit", EXITS),), labelled=True, buckets=LONG,
    ),
    Metric(
        "asyncio.subprocess.reap.delay", "histogram", "s",
        "How long subprocesses had been dead when the loop reaped them, since the handle that reaps became ready or, if"
        " the loop was blocked then, since the watchdog saw the end.", labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.signal.delivered", "counter", "{signal}",
        "Signals that arrived for handlers added with add_signal_handler.", (_SIGNAL,), labelled=True,
    ),
    Metric(
        "cpython.gc.collections", "counter", "{collection}",
        "Garbage collections since obsloop was loaded.", (_GENERATION,), "process",
    ),
    Metric(
        "cpython.gc.pause.duration", "histogram", "s",
        "Duration of garbage collections, from gc's start callback to its stop callback.", (_GENERATION,), "process",
        buckets=SHORT,
    ),
    Metric(
        "obsloop.self.time", "counter", "s",
        "What obsloop itself costs off the hot path: snapshots, answers to scrapes and exports (which take snapshots,"
        " too), the watchdog, and listing the live tasks.",
        (Label("what", SELF_TIME),), "process", level="basic",
    ),
    Metric(
        "obsloop.dropped", "counter", "{item}",
        "What obsloop itself dropped: what was counted under _OTHER, by the label that had too many values; snapshots"
        " that a busy writer kept from being consistent; coroutine functions without a name of their own; exports that"
        " failed; spans over the limit per minute; creations and cancellations of tasks, and tasks with something"
        " wrong, for which there was no more room.",
        (Label("what", DROPPED),), "process", level="basic", from_start=True,
    ),
    Metric(
        "obsloop.instrument.disabled", "counter", "{hook}",
        "Hooks of instruments that raised and were disabled.", (Label("what", HOOKS),), "process",
        level="basic",
    ),
)  # fmt: skip
