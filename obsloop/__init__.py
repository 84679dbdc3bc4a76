"""obsloop: an asyncio event loop that measures where its time goes.

asyncio.run(main(), loop_factory=obsloop.new_event_loop)
"""

# The map of all files. Each folder imports only from those above it: tests/test_house.py checks that. ARCHITECTURE.md
# follows one request that blocks for 0.4 s through these files.
#
#   _version.py            the version
#   base/                  what every other folder may use
#     clock.py             monotonic nanoseconds, one clock for the whole process
#     environment.py       which OBSLOOP_* variables are settings, and what is wrong with the others
#     settings.py          every setting, from arguments or OBSLOOP_* variables
#     suggest.py           the nearest of the known names, for a typo
#     address.py           addresses of the service: text, host and port, Unix socket
#     guarded.py           call a function, and log an error of obsloop once
#     log.py               the logger; lines that are logged once, or once in 10 s
#     stderr.py            write lines to stderr without ever waiting for a reader
#     fork.py              what a forked child must forget
#     threads.py           start obsloop's threads, without the program's signals
#     gc_pause.py          no garbage collection while obsloop's threads read the program's objects
#     asyncio_private.py   asyncio's private parts, with types
#     asyncio_check.py     does this asyncio have the private parts that the hot path needs?
#   events.py              the events that instruments get
#   introspect/            read the program's objects without running the program's code
#     attributes.py        attributes and names
#     functions.py         a function's name and place, under its wrappers
#     coroutines.py        a task's coroutine, and the line where it waits
#     contexts.py          the `async with` blocks that a coroutine is in
#     protocols.py         a transport's protocol, and its peer
#     callbacks.py         from a handle to a name that a person understands
#     frames.py            read another thread's frames in one step
#     own_code.py          the program's own code or a library's: the culprit of a block
#     stacks.py            those frames as text, from the loop's callback on
#     places.py            a file and a line, short enough to read
#     spans.py             the OpenTelemetry span in which something ran
#     routes.py            the web request's route in which something ran
#     error_names.py       names of exceptions, for the label `error.type`
#   instruments.py         Instrument: add, remove, call
#   metrics/               the numbers; it knows no hot path
#     metric.py            what the catalogue says of a metric
#     catalog.py           THE list of metrics
#     levels.py            which of them are exported: basic or full
#     buckets.py           the bounds that all histograms share
#     counters.py          the numbers that one running loop writes
#     reading.py           a consistent copy of them, for other threads
#     lag.py               what a callback that became ready at a random moment would have waited
#     labelled.py          counters and histograms by label, for rare things
#     coroutine_times.py   time that the tasks of each coroutine function took
#     exemplars.py         one trace for each slow bucket
#     runs.py              which loops run now, and in which threads
#     registry.py          one entry for each loop name; lends blocks of counters
#     snapshot.py          the Snapshot that readers get
#     self_metrics.py      what obsloop costs, and what it dropped
#   hotpath/               the code that runs for every callback
#     backend.py           compiled or pure: chosen once
#     observer.py          the hot path's reports to folders that it must not import
#     kinds.py             what kind of callback a handle holds
#     marks.py             which handles are the core's own
#     cold_path.py         what both cores do rarely: errors, debug mode, begin and end of a run
#     creation_samples.py  a sample of where tasks are created
#     held.py              objects that a sample held, until the loop's thread drops them
#     displaced.py         loops whose _run_once other code has replaced
#     patched.py           has another tool replaced asyncio's Handle._run?
#     pure/                in Python: the copy to read
#       handles.py         asyncio's handles, with kind and ready time
#       scheduling.py      call_soon ... add_writer
#       self_pipe.py       wake the loop from another thread
#       iteration.py       run_once
#       task_table.py      the live tasks of one loop
#       task_steps.py      count a task's steps and its end
#       create_task.py     loop.create_task
#       socket_io.py       one read, one write
#       libuv_hooks.py     the polls of a uvloop loop
#     compiled/            in Cython: the same files, and
#       core.pyx           imports, and the order in which the other files are included
#       core.pxd           declarations
#       native.h           parts that are written in C
#       clock.pxi          the clock
#       buckets.pxi        the bucket of a value
#       counters.pxi       the counters
#       fields.pxi         their copy and reset, written by `make fields`
#       wakeup.pxi         the watchdog sleeps here
#       loop_state.pxi     a loop's fields in a struct
#       handles.pxi        its twin's
#       scheduling.pxi     its twin's
#       self_pipe.pxi      its twin's
#       iteration.pxi      its twin's
#       task_table.pxi     its twin's
#       task_steps.pxi     its twin's
#       create_task.pxi    its twin's
#       socket_io.pxi      its twin's
#       libuv_hooks.pxi    its twin's
#   profile/               where time went, by stack, as plain data
#     data.py              the data, and how several are merged
#     windows.py           the last day, in a ring of time buckets
#     labels.py            names of the program as labels
#     formats.py           collapsed stacks, and speedscope's JSON
#     pprof.py             pprof's protobuf
#   tasks/                 live tasks, seen from other threads
#     census.py            all live tasks: their age, and where they wait
#     asking.py            ask a task what state it is in
#     chains.py            the coroutines of a task that await each other
#     since.py             since when each task waits for its present future
#     asyncio_waits.py     the coroutines of asyncio in which tasks wait: locks, queues, timers, sockets
#     awaits.py            what a task waits for at the end of its chain
#     graph.py             who awaits whom, the locks between them, and circles
#     tracking.py          who created and who cancelled each task, for loops that ask for it
#     lock_places.py       which line made each lock, for programs that ask for it
#     describing.py        describe the tasks of one listing
#     waiting.py           the profile of waiting
#     lints/               detectors of tasks with something wrong
#       runner.py          run the detectors, on a slice of the tasks at a time
#       scan.py            read each task once, for all detectors
#       findings.py        count findings, keep them, report each once
#       never_yields.py    a task that runs for long, or only yields with sleep(0)
#       never_woken.py     a task that nothing can wake
#       growing.py         ever more tasks of one kind
#       never_retrieved.py an exception that was never retrieved
#   probes/                measure what the loop hands away: one file for each thing, each with its metrics
#     collect.py           snapshots() and process_snapshot(): ask every probe
#     tasks.py             how tasks end, and the times of the running one
#     executors.py         jobs in executors
#     executor_pools.py    the executors that run the jobs
#     anyio_threads.py     anyio's threads, in which FastAPI's `def` routes run
#     executor_loads.py    what all executors of a loop are busy with, and with which functions
#     dns.py               look-ups of host names
#     processes.py         subprocesses
#     signals.py           signals
#     requests.py          web requests, by route
#     gc.py                garbage collection
#     network/             connections, and traffic over sockets and pipes
#       connections.py     connections that the program opens
#       servers.py         connections that servers accept
#       tls.py             TLS handshakes
#       socket_family.py   TCP, Unix, UDP
#       transports/        asyncio's own, with counters
#         accounting.py    count what was opened, closed and why, bytes, buffers
#         base.py          the part that all transports share
#         streams.py       stream sockets
#         datagrams.py     datagram sockets
#         pipes.py         pipes
#         factory.py       how a loop makes them
#   blocking/              slow callbacks, blocked loops, and why
#     slow.py              a callback or an iteration was slow: where its time went
#     blame.py             who blocked the loop, and for how long
#     watchdog.py          the watchdog's thread
#     wakeup.py            the watchdog sleeps here
#     detector.py          is this loop blocked?
#     sighting.py          a sample: what the blocked thread is doing
#     episodes.py          one block, from its first sample to its end
#     endings.py           open blocks, ended blocks, and their events
#     cause.py             why the loop did not move: the table of causes
#     usage.py             what a thread used of the machine
#     exemplars.py         traces of slow callbacks, and of callbacks that waited behind them
#     recent.py            the most recent events, for /slow
#     totals.py            blocks of the last hour and day, by culprit
#     profile.py           the profile of blocked time
#     log.py               log lines about blocks
#     starvation.py        the lint for executors whose jobs wait too long for a worker
#   group/                 the processes that one command started, which answer as one
#     current.py           which group this process is in
#     folder.py            the group's private folder
#     slots.py             a number for each process, and its heartbeat
#     health.py            is a process's loop blocked?
#     published.py         a process's metrics as plain data
#     ask.py               ask the other processes
#     membership.py        publish this process's metrics, read the others'
#     reading.py           the metrics of all workers
#   service/               HTTP, in threads of its own
#     lifecycle.py         start and stop the service; forks
#     server.py            one selector for all clients
#     listeners.py         sockets that listen
#     connection.py        one client
#     access.py            which requests are refused
#     messages.py          the part of HTTP/1.1 that the service needs
#     answers.py           threads for answers that take long
#     resting.py           let a fork go ahead while one of them sleeps
#     routes.py            which path gives which answer
#     sharing.py           the listening sockets of a group
#     own.py               what a process answers to the others of its group
#     timers.py            what the service does at certain times
#     chores.py            what the pages' thread does between two answers
#     history.py           five minutes of time blocked, lag and utilization
#     pages.py             answers as HTML, JSON or text
#     style.py             the pages' style and script, and the policy that allows them
#     text.py              numbers and tables for people, in a terminal of 100 columns
#     source.py            stacks with lines of source
#     workers.py           one report of the reports of all workers
#     merging.py           add them up
#     culprits.py          the culprits of blocks, on each page
#     blocks.py            the blocks that last, and the last one of each loop
#     overview.py          the page /
#     slow.py              the page /slow
#     tasks.py             the page /tasks
#     waits.py             who waits for whom, on that page
#     profile.py           the page /profile
#     flame.py             a flame graph without a script
#     pprof.py             the paths /debug/pprof/
#     sampling.py          sample the loops' threads while a client asks
#     asked.py             what a client asks of a profile
#     executors.py         what the executors are busy with, for pages, JSON and text
#   loop/                  the loop
#     loop.py              Loop: asyncio's loop, with the hot path in it
#     observation.py       what one loop carries of obsloop
#     exceptions.py        calls of the loop's exception handler
#     start.py             new_event_loop, run, instrument
#     kept_uvloop.py       observe a loop that stays uvloop's
#     fallback.py          the loop on an asyncio that the hot path does not know
#   integrations/          front doors for programs that do not import obsloop
#     autoload.py          observe every new loop of this process
#     pytest_plugin.py     fail a test that blocks its loop
#   top/                   obsloop top: observed processes in a terminal
#     target.py            what to show: all groups, one, one process, or a URL
#     shapes.py            take what is needed from answers of other processes
#     source.py            what a reading has
#     groups.py            find the groups' folders
#     local.py             read the groups of this machine
#     remote.py            read a service at a URL
#     cells.py             tables for a terminal of any width
#     overview.py          the overview: a row for each loop of each worker
#     lists.py             culprits, executors, lints
#     tasks.py             tasks, grouped or as a tree
#     once.py              a table or JSON for scripts
#     app.py               the application, with Textual
#     lines.py             its widget for tables
#     help.py              its page of keys
#   cli/                   the command `obsloop`
#     run.py               obsloop run
#     top.py               obsloop top
#     servers.py           would this command use uvloop?
#     bootstrap/sitecustomize.py  Python runs this first in each process under `obsloop run`
#   asgi.py                middleware: how each request used the loop
#   testing.py             for tests: StepClock and Recorder
#   __main__.py            python -m obsloop

from obsloop import events as events
from obsloop._version import __version__ as __version__
from obsloop.base.settings import Settings as Settings, SettingsError as SettingsError, SpanSettings as SpanSettings
from obsloop.group.reading import GroupSnapshots as GroupSnapshots, group_snapshots as group_snapshots
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
from obsloop.metrics.catalog import LOOP_NAME_LABEL as LOOP_NAME_LABEL, METRICS as METRICS
from obsloop.metrics.levels import exported_metrics as exported_metrics
from obsloop.metrics.metric import Label as Label, Metric as Metric
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
