# What the table of metrics/counters.py asks of the compiled counters. `make fields` writes this file.

from obsloop.metrics.counters import Counted

if [(each.name, each.metadata.get("cells", 0)) for each in _counters.FIELDS] != [
    ('durations', 1449),
    ('delays', 1449),
    ('task_durations', 161),
    ('poll', 161),
    ('iteration', 161),
    ('iteration_ns', 161),
    ('depth', 94),
    ('gc_ns', 6),
    ('io_bytes', 8),
    ('tasks_finished', 4),
    ('tick_ns', 0),
    ('state', 0),
    ('run_started_ns', 0),
    ('began_ns', 0),
    ('run_ns', 0),
    ('idle_ns', 0),
    ('nested_ns', 0),
    ('gc_started_ns', 0),
    ('events', 0),
    ('events_waiting', 0),
    ('tasks_created', 0),
]:
    raise ImportError("the compiled core was built from another table of counters; build it again")

cdef int reset_fields(Counters c) except -1:
    memset(c.durations, 0, sizeof(c.durations))
    memset(c.delays, 0, sizeof(c.delays))
    memset(c.task_durations, 0, sizeof(c.task_durations))
    memset(c.poll, 0, sizeof(c.poll))
    memset(c.iteration, 0, sizeof(c.iteration))
    memset(c.iteration_ns, 0, sizeof(c.iteration_ns))
    memset(c.depth, 0, sizeof(c.depth))
    memset(c.gc_ns, 0, sizeof(c.gc_ns))
    memset(c.io_bytes, 0, sizeof(c.io_bytes))
    memset(c.tasks_finished, 0, sizeof(c.tasks_finished))
    c.run_ns = 0
    c.idle_ns = 0
    c.nested_ns = 0
    c.gc_started_ns = 0
    c.events = 0
    c.events_waiting = 0
    c.tasks_created = 0
    return 0


cdef object copied_fields(Counters c):
    return Counted(
        durations=as_list(c.durations, 1449),
        delays=c.blocks_as_list(c.delays, 9),
        task_durations=c.blocks_as_list(c.task_durations, 1),
        poll=as_list(c.poll, 161),
        iteration=as_list(c.iteration, 161),
        iteration_ns=as_list(c.iteration_ns, 161),
        depth=as_list(c.depth, 94),
        gc_ns=as_list(c.gc_ns, 6),
        io_bytes=as_list(c.io_bytes, 8),
        tasks_finished=as_list(c.tasks_finished, 4),
        tick_ns=c.tick_ns,
        state=c.state,
        run_started_ns=c.run_started_ns,
        began_ns=c.began_ns,
        run_ns=c.run_ns,
        idle_ns=c.idle_ns,
        nested_ns=c.nested_ns,
        gc_started_ns=c.gc_started_ns,
        events=c.events,
        events_waiting=c.events_waiting,
        tasks_created=c.tasks_created,
        coroutines=c.coroutine_times(),
    )
