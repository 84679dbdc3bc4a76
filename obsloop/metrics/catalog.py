"""THE list of metrics: what obsloop measures, under which name, in which unit, with which labels, since when.

Exporters, the reference page, the dashboards and the tests are derived from it; nothing is exported that is not here.
Names follow OpenTelemetry's style; no convention for asyncio exists yet, so they mirror ``nodejs.eventloop.*`` and
``cpython.gc.*``. A metric is added here when something measures it, not before.
"""

from dataclasses import dataclass
from typing import Literal

from obsloop.events import CAUSES, CLOSINGS, DIRECTIONS, EXITS, LINTS, OUTCOMES, ROLES
from obsloop.instruments import HOOKS
from obsloop.metrics.buckets import COUNTS, SECONDS
from obsloop.metrics.counters import FINISHES, KINDS, NETWORKS

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]
"""An updowncounter adds up over loops and processes, a gauge does not."""

MAX_LOOP_NAMES = 8
OTHER = "_OTHER"
"""The label value that stands for everything past a bound."""

LOOP_NAME_LABEL = "asyncio.eventloop.name"
STATES = ("idle", "poll", "callback", "gc", "overhead")
GENERATIONS = ("0", "1", "2")
SELF_TIME = ("snapshot", "scrape", "export", "watchdog", "tasks")
MAX_SITES = 100
MAX_ERROR_TYPES = 50
ORIGINS = ("callback", "task", "future", "transport", "server", "other")
"""What an error that nobody caught came from."""
MAX_EXECUTORS = 8
MAX_RESOLVER_ERRORS = 20
MAX_SIGNALS = 32
MAX_CONNECTION_ERRORS = 20
MAX_SERVER_ADDRESSES = 8
NETWORK_TYPES = ("ipv4", "ipv6", "unix", "other")

# Bounds of buckets to begin with. Each costs a server one series for each set of labels of each loop, so a histogram
# has no bounds where its values cannot be; the sum is in dashboards/config.py, and a test holds it.
SHORT = (1e-4, 1e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Of what ought to be short, or somebody waits."""
LONG = (1e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0)
"""Of what lasts as long as the program likes: tasks, jobs, subprocesses."""
BLOCKED = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Of blocks: shorter ones are none."""
DEPTH = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0, 10000.0)
"""Of counts."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label and all the values it can have; or, where they come from the program, how many there can be."""

    name: str
    values: tuple[str, ...] = ()
    """All its values; each is there from the beginning. Empty where they come from the program."""
    bound: int = 0
    """Of values that come from the program: how many there can be, besides ``_OTHER`` for the rest."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue."""

    name: str
    kind: Kind
    unit: str
    """UCUM, as OpenTelemetry wants it: ``s``, ``1``, or a plain count in braces."""
    help: str
    """What it means and, for a time, from when to when the clock runs."""
    labels: tuple[Label, ...] = ()
    """Beside the loop's name, which every metric of scope ``loop`` carries."""
    scope: Literal["loop", "process"] = "loop"
    labelled: bool = False
    """Whether it is counted by itself when it happens (``metrics.labelled``), and not read from the loop's counters."""
    buckets: tuple[float, ...] = ()
    """Of a histogram: the upper bounds, in its unit and without +Inf, that it is exported with unless others are asked
    for; OpenTelemetry's advisory parameter ``ExplicitBucketBoundaries``."""

    @property
    def bounds(self) -> tuple[float, ...]:
        """Of a histogram: all the decimal bounds, in its unit, that it can be exported with exactly; else none."""
        if self.kind != "histogram":
            return ()
        return (SECONDS if self.unit == "s" else COUNTS).decimal_bounds


_SITE = Label("code.function.name", bound=MAX_SITES)
_ERROR_TYPE = Label("error.type", bound=MAX_ERROR_TYPES)
EXECUTOR = Label("executor", bound=MAX_EXECUTORS)
_SIGNAL = Label("signal", bound=MAX_SIGNALS)
SERVER_ADDRESS = Label("server.address", bound=MAX_SERVER_ADDRESSES)
BOUNDED = (_SITE, _ERROR_TYPE, EXECUTOR, _SIGNAL, SERVER_ADDRESS)
"""The labels whose values come from the program."""
DROPPED = (
    LOOP_NAME_LABEL,
    "torn_snapshot",
    "coroutine",
    "export",
    "span",
    "task_creation",
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
        "Time the loop ran, by what it did. The states partition it: idle waits for events, poll asks for them without"
        " waiting, callback runs callbacks, gc collects garbage in the loop's thread, overhead is the loop itself.",
        (Label("state", STATES),),
    ),
    Metric(
        "asyncio.eventloop.utilization", "gauge", "1",
        "Share of its running time that the loop was not idle, since the last reading of this reader.",
    ),
    Metric("asyncio.eventloop.iterations", "counter", "{iteration}", "Iterations of the loop."),
    Metric("asyncio.eventloop.events", "counter", "{event}", "File descriptors that polls returned as ready."),
    Metric(
        "asyncio.eventloop.events_waiting", "counter", "{event}",
        "Events that were waiting already when the loop polled without a wait: it was behind.",
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
        "asyncio.eventloop.schedule.delay", "histogram", "s",
        "How long callbacks waited, from ready (scheduled, returned by a poll, or due) to their first instruction.",
        (_KIND,), buckets=SHORT,
    ),
    Metric(
        "asyncio.eventloop.callback.duration", "histogram", "s",
        "Duration of callbacks, from the first instruction (the end of the one before) to the return.",
        (_KIND,), buckets=SHORT,
    ),
    Metric(
        "asyncio.eventloop.callback.slow", "counter", "{callback}",
        "Callbacks that took slow_callback_duration or longer, by the coroutine or function.",
        (_SITE,), labelled=True,
    ),
    Metric(
        "asyncio.eventloop.block.episodes", "counter", "{episode}",
        "Times that the loop was blocked: iterations that took too long, or in which one callback did; by cause.",
        (_CAUSE,), labelled=True,
    ),
    Metric(
        "asyncio.eventloop.block.duration", "histogram", "s",
        "How long the loop was blocked, from the return of select to its next call.", (_CAUSE,), labelled=True,
        buckets=BLOCKED,
    ),
    Metric(
        "asyncio.eventloop.exceptions", "counter", "{exception}",
        "Calls of the loop's exception handler: errors that nobody caught, by the exception's class and by origin.",
        (_ERROR_TYPE, Label("origin", ORIGINS)), labelled=True,
    ),
    Metric(
        "asyncio.eventloop.callback.time", "counter", "s",
        "Time that callbacks took, by the coroutine of the task whose steps they were: the busiest by name. In the pure"
        " core an estimate from one step in sixteen.",
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
        "How long the loop has been in its present callback, computed at the reading; 0 when it waits or does not run.",
    ),
    Metric(
        "asyncio.task.created", "counter", "{task}",
        "Tasks that were created; of those from before the loop was observed, the ones that have had a step since. In"
        " the pure core tasks are counted, here and as active, from their first step on.",
    ),
    Metric(
        "asyncio.task.finished", "counter", "{task}",
        "Tasks that have ended, by outcome. abandoned: destroyed while pending, or left behind by a loop that was"
        " closed.",
        (Label("outcome", FINISHES),),
    ),
    Metric("asyncio.task.active", "updowncounter", "{task}", "Tasks that are not done."),
    Metric(
        "asyncio.task.oldest.age", "gauge", "s",
        "How long ago the oldest task that is not done was created, computed at the reading; 0 when there is none.",
    ),
    Metric(
        "asyncio.task.first_step.delay", "histogram", "s",
        "How long tasks waited for their first step, from creation to its first instruction; those that begin at once"
        " (eager ones) are not among them.", buckets=SHORT,
    ),
    Metric(
        "asyncio.task.duration", "histogram", "s", "How long tasks took, from creation to their end.", buckets=LONG,
    ),
    Metric(
        "asyncio.task.lint", "counter", "{finding}",
        "What was found to be wrong with tasks. never_yields: one did not let others run for too long, or gave way only"
        " to go on at once; never_woken: one waits for a future that nobody can set; growing: ever more tasks of one"
        " kind; exception_never_retrieved: an exception that nobody asked for.",
        (Label("lint", LINTS),), labelled=True,
    ),
    Metric(
        "asyncio.executor.queue.length", "updowncounter", "{job}",
        "Jobs that the loop has handed to an executor and no worker has begun. Of a process pool those that it has no"
        " process for.",
        (EXECUTOR,),
    ),
    Metric(
        "asyncio.executor.thread.count", "updowncounter", "{thread}",
        "Threads of the executors that the loop uses; of a process pool its processes.", (EXECUTOR,),
    ),
    Metric(
        "asyncio.executor.thread.active", "updowncounter", "{thread}",
        "Threads that run a job of the loop; of a process pool the processes that it has jobs for.", (EXECUTOR,),
    ),
    Metric(
        "asyncio.executor.job.queue_duration", "histogram", "s",
        "How long jobs waited for a worker, from submitted to begun, or to cancelled where they never began.",
        (EXECUTOR, _OUTCOME), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.executor.job.duration", "histogram", "s",
        "How long jobs ran, from begun to ended in the worker; where their beginning cannot be seen (process pools),"
        " from submitted.",
        (EXECUTOR, _OUTCOME), labelled=True, buckets=LONG,
    ),
    Metric(
        "asyncio.executor.result.delay", "histogram", "s",
        "How long results waited for the loop, from the job's end to the beginning of the callback that delivers it.",
        (EXECUTOR, _OUTCOME), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.executor.oldest_job.age", "gauge", "s",
        "How long ago the oldest job that has not ended was submitted, computed at the reading; 0 when there is none.",
        (EXECUTOR,),
    ),
    Metric(
        "asyncio.transport.active", "updowncounter", "{transport}",
        "Transports that are open. A datagram socket without a remote address is a server; pipes are clients.",
        (_NETWORK, _ROLE),
    ),
    Metric(
        "asyncio.transport.opened", "counter", "{transport}", "Transports that were made.", (_NETWORK, _ROLE),
        labelled=True,
    ),
    Metric(
        "asyncio.transport.closed", "counter", "{transport}",
        "Transports that were closed. eof: the peer ended first; local: this side did; reset: the peer broke it off;"
        " error: another error; aborted: by abort(), or left behind unclosed.",
        (_NETWORK, Label("reason", CLOSINGS)), labelled=True,
    ),
    Metric(
        "asyncio.transport.io", "counter", "By",
        "Bytes that went through transports, between them and the kernel: with TLS those of its records.",
        (Label("direction", DIRECTIONS), _NETWORK),
    ),
    Metric(
        "asyncio.transport.write_buffer.usage", "updowncounter", "By",
        "Bytes in the write buffers of all transports: written by the program and not taken by the kernel.",
    ),
    Metric(
        "asyncio.transport.write_paused.time", "counter", "s",
        "Time that transports had their protocols paused, from pause_writing to resume_writing: peers do not read.",
    ),
    Metric(
        "asyncio.transport.write_paused.episodes", "counter", "{episode}",
        "Times that a transport paused its protocol, since its write buffer passed the high-water mark.", labelled=True,
    ),
    Metric(
        "dns.lookup.duration", "histogram", "s",
        "How long the resolver took for getaddrinfo and getnameinfo, from begun to ended in the worker: the executor's"
        " queue is not in it. The error is the resolver's (EAI_NONAME), or the exception's class; empty when fine.",
        (Label("error.type", bound=MAX_RESOLVER_ERRORS),), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.connect.duration", "histogram", "s",
        "How long each attempt to connect a stream socket took, from connect to connected, refused, timed out or given"
        " up; names are looked up before. The error is the exception's class, or the system's name where that is only"
        " OSError (ENETUNREACH); asyncio.exceptions.CancelledError for one that was given up: a time-out of the"
        " program's, or another address was faster. Empty when fine.",
        (Label("network.type", NETWORK_TYPES), Label("error.type", bound=MAX_CONNECTION_ERRORS)), labelled=True,
        buckets=SHORT,
    ),
    Metric(
        "asyncio.tls.handshake.duration", "histogram", "s",
        "How long TLS handshakes took, from the connection being there to the end of the handshake. The error is the"
        " exception's class: ssl.SSLCertVerificationError; TimeoutError for asyncio's own handshake time-out;"
        " asyncio.exceptions.CancelledError where nobody waits for it any more. Empty when fine.",
        (_ROLE, Label("error.type", bound=MAX_CONNECTION_ERRORS)), labelled=True, buckets=SHORT,
    ),
    Metric(
        "asyncio.server.accepted", "counter", "{connection}",
        "Connections that servers accepted, by the address that they listen on.", (SERVER_ADDRESS,), labelled=True,
    ),
    Metric(
        "asyncio.server.accept.errors", "counter", "{error}",
        "Accepts that failed, by the address listened on and the system's name for the error: EMFILE is too many open"
        " files.",
        (SERVER_ADDRESS, Label("error.type", bound=MAX_CONNECTION_ERRORS)), labelled=True,
    ),
    Metric(
        "asyncio.server.connections.active", "updowncounter", "{connection}",
        "Connections that servers have accepted and whose transports are open, by the address listened on.",
        (SERVER_ADDRESS,),
    ),
    Metric(
        "asyncio.subprocess.active", "updowncounter", "{process}",
        "Subprocesses that the loop has started and not reaped.",
    ),
    Metric(
        "asyncio.subprocess.duration", "histogram", "s",
        "How long subprocesses lived, from just before the fork until they were reaped; by exit: ok is status 0, error"
        " another one, signal a death by signal.",
        (Label("exit", EXITS),), labelled=True, buckets=LONG,
    ),
    Metric(
        "asyncio.subprocess.reap.delay", "histogram", "s",
        "How long subprocesses had been dead when the loop reaped them: since the handle that reaps was ready, or,"
        " where the loop was blocked then, since the watchdog saw the end.", labelled=True, buckets=SHORT,
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
        "Our own cost off the hot path: taking snapshots, answering scrapes and making exports (which take snapshots"
        " too), watching for blocked loops, and looking which tasks there are.",
        (Label("what", SELF_TIME),), "process",
    ),
    Metric(
        "obsloop.dropped", "counter", "{item}",
        "Our own losses: what was counted under _OTHER, by the label that had too many values; snapshots that a busy"
        " writer kept from being consistent; children whose end nobody waited for; exports that failed; creations of"
        " tasks, and tasks with something wrong, for which there was no more room.",
        (Label("what", DROPPED),), "process",
    ),
    Metric(
        "obsloop.instrument.disabled", "counter", "{hook}",
        "Hooks of instruments that raised and were disabled.", (Label("what", HOOKS),), "process",
    ),
)  # fmt: skip
