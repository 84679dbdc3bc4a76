"""obsloop: an asyncio event loop that knows where its time went.

asyncio.run(main(), loop_factory=obsloop.new_event_loop)
"""

# The map. Each folder imports only from those above it: tests/test_house.py checks that. ARCHITECTURE.md follows one
# request that blocks for 0.4 s through the house.
#
#   _version.py            the version
#   base/                  what every other folder may use
#     clock.py             monotonic nanoseconds, one clock for the whole process
#     settings.py          every setting, from arguments or OBSLOOP_* variables
#     address.py           addresses of the service: text, host and port, Unix socket
#     guarded.py           call a function, and log an error of obsloop's own once
#     log.py               the logger; lines that are logged once, or once in a while
#     stderr.py            lines on stderr, which never wait for a reader
#     fork.py              what a forked child must forget
#     threads.py           threads that leave the program's signals alone
#     gc_pause.py          no garbage collection while obsloop's threads look at the program
#     asyncio_private.py   asyncio's private parts, with types
#     asyncio_check.py     is this asyncio as the hot path knows it?
#   events.py              what instruments are given
#   introspect/            reads the program's objects without running the program's code
#     attributes.py        attributes and names
#     functions.py         a function's name and place, beneath its wrappers
#     coroutines.py        a task's coroutine, and the line where it waits
#     protocols.py         a transport's protocol, and its peer
#     callbacks.py         from a handle to the name that a person understands
#     frames.py            another thread's frames, in one step
#     stacks.py            those frames as text, from the loop's callback on
#     spans.py             the OpenTelemetry span in which something ran
#     error_names.py       exceptions as `error.type` has them
#   instruments.py         Instrument: add, remove, call
#   metrics/               the numbers; knows nothing of asyncio
#     catalog.py           THE list of metrics
#     buckets.py           the bounds that all histograms share
#     counters.py          what one running loop writes, and a consistent copy of it
#     labelled.py          counters and histograms by label, for what happens rarely
#     coroutine_times.py   what each coroutine function took
#     exemplars.py         one trace for each slow bucket
#     runs.py              which loops run now, and in which threads
#     registry.py          one entry for each loop name: lease, release
#     snapshot.py          what readers get
#     self_metrics.py      what obsloop itself costs, and what it dropped
#   hotpath/               what happens for every callback
#     backend.py           compiled or pure: chosen once
#     observer.py          what the hot path reports upwards
#     kinds.py             what kind of callback it is
#     marks.py             which handles are the core's own
#     cold_path.py         what both cores do now and then: errors, debug mode, begin and end of a run
#     creation_samples.py  a sample of where tasks are created
#     held.py              what another thread's look held, until the loop's thread drops it
#     displaced.py         loops whose _run_once other code has replaced
#     pure/                in Python: the copy to read
#       handles.py         asyncio's handles, with kind and ready time
#       scheduling.py      call_soon ... add_writer
#       iteration.py       run_once
#       task_table.py      the live tasks of one loop
#       task_steps.py      what is counted of a task's steps and its end
#       create_task.py     loop.create_task
#       socket_io.py       one read, one write
#     compiled/            in Cython: the same files, and
#       core.pyx           imports, and what is included in which order
#       core.pxd           declarations
#       native.h           C
#       clock.pxi          the clock
#       buckets.pxi        which bucket
#       counters.pxi       the counters
#       wakeup.pxi         what the watchdog sleeps on
#       loop_state.pxi     a loop's fields in a struct
#       handles.pxi        its twin's
#       scheduling.pxi     its twin's
#       iteration.pxi      its twin's
#       task_table.pxi     its twin's
#       task_steps.pxi     its twin's
#       create_task.pxi    its twin's
#       socket_io.pxi      its twin's
#   tasks/                 live tasks, seen from outside
#     census.py            all of them, since when they live, where they wait
#     lints/               detectors
#       runner.py          looks at the tasks in slices
#       scan.py            one look, for all detectors
#       findings.py        counted, kept, reported once
#       never_yields.py    a task that gives way only to go on at once
#       never_woken.py     a task that nothing can wake
#       growing.py         ever more tasks of one kind
#       never_retrieved.py an exception that no code asked for
#   probes/                what is wrapped: one file for each thing, each with its metrics
#     collect.py           snapshots() and process_snapshot(): asks every probe
#     tasks.py             how tasks end, and what the running one took
#     executors.py         jobs
#     executor_pools.py    the executors that run them
#     dns.py               look-ups of names
#     processes.py         subprocesses
#     signals.py           signals
#     gc.py                garbage collection
#     network/             what goes over sockets and pipes
#       connections.py     connections that this side asks for
#       servers.py         connections that come in
#       tls.py             handshakes
#       socket_family.py   TCP, Unix, UDP
#       transports/        asyncio's own, with counters
#         accounting.py    opened, closed and why, bytes, buffers
#         base.py          what all transports have in common
#         streams.py       stream sockets
#         datagrams.py     datagram sockets
#         pipes.py         pipes
#         factory.py       how a loop makes them
#   blocking/              slow callbacks, blocked loops, and why
#     slow.py              a callback or an iteration was slow: what it was spent on
#     watchdog.py          the thread
#     wakeup.py            what it sleeps on
#     detector.py          is this loop blocked?
#     sighting.py          what its thread is doing
#     episodes.py          one block, from its first sight to its end
#     endings.py           blocks that are open, blocks that are over, and their events
#     cause.py             why: the table of causes
#     usage.py             what a thread used of the machine
#     exemplars.py         traces of slow callbacks and of what waited behind them
#     recent.py            the last ones, for /slow
#     log.py               lines about loops that are blocked for long
#   service/               HTTP, in threads of its own
#     lifecycle.py         starts, stops, forks
#     server.py            one selector for all clients
#     listeners.py         sockets that listen
#     connection.py        one client
#     access.py            requests that are refused
#     messages.py          HTTP/1.1 as far as it is needed
#     answers.py           threads for answers that take long
#     routes.py            what is served
#     pages.py             HTML or JSON
#     slow.py              /slow
#     tasks.py             /tasks
#   loop/                  the loop
#     loop.py              Loop: asyncio's own, with the hot path in it
#     observation.py       what one loop carries of obsloop
#     exceptions.py        exceptions that no code caught
#     start.py             new_event_loop, run, instrument
#     fallback.py          the loop on an asyncio that the hot path does not know
#   integrations/          front doors for programs that know nothing of obsloop
#     autoload.py          observe every new loop of this process
#     pytest_plugin.py     fail a test that blocks its loop
#   cli/                   the command `obsloop`
#     run.py               obsloop run
#     bootstrap/sitecustomize.py  what Python runs first in each process under it
#   asgi.py                a request's share of the loop
#   testing.py             StepClock and Recorder
#   __main__.py            python -m obsloop

from obsloop import events as events
from obsloop._version import __version__ as __version__
from obsloop.base.settings import Settings as Settings, SettingsError as SettingsError, SpanSettings as SpanSettings
from obsloop.hotpath import backend
from obsloop.instruments import (
    Instrument as Instrument,
    add_instrument as add_instrument,
    remove_instrument as remove_instrument,
)
from obsloop.integrations.autoload import observe_new_loops as observe_new_loops
from obsloop.loop.start import (
    InstrumentError as InstrumentError,
    Loop as Loop,
    instrument as instrument,
    new_event_loop as new_event_loop,
    run as run,
)
from obsloop.metrics.catalog import (
    LOOP_NAME_LABEL as LOOP_NAME_LABEL,
    METRICS as METRICS,
    Label as Label,
    Metric as Metric,
)
from obsloop.metrics.self_metrics import count_dropped_spans as count_dropped_spans, count_export as count_export
from obsloop.metrics.snapshot import (
    CoroutineTime as CoroutineTime,
    Exemplar as Exemplar,
    ExponentialBuckets as ExponentialBuckets,
    Histogram as Histogram,
    Snapshot as Snapshot,
)
from obsloop.probes.collect import process_snapshot as process_snapshot, snapshots as snapshots
from obsloop.probes.tasks import TaskTimes as TaskTimes, measure_tasks as measure_tasks, task_times as task_times

core = backend.name
