"""The public names are held here: a change to them is a change for users, and belongs into the changelog."""

import inspect
import types

import obsloop
import obsloop.asgi
import obsloop.testing

from .support import output

PUBLIC = {
    "CoroutineTime", "Exemplar", "ExponentialBuckets", "GroupSnapshots", "Histogram", "Instrument", "InstrumentError",
    "LOOP_NAME_LABEL", "Label", "Loop", "METRICS", "Settings", "SettingsError", "Metric", "Snapshot", "SpanSettings",
    "TaskTimes", "add_instrument", "core", "count_dropped_spans", "count_export", "exported_metrics", "group_snapshots",
    "instrument",
    "measure_tasks", "new_event_loop", "observe_new_loops", "process_snapshot", "remove_instrument", "run",
    "snapshots", "task_times",
}  # fmt: skip
PUBLIC_EVENTS = {
    "Attempt", "BlockEvent", "CAUSES", "CLOSINGS", "CallbackError", "ConnectionSetUp", "DIRECTIONS", "EXITS", "Event",
    "ExecutorJob", "LINTS", "LoopBlocked", "LoopUnblocked", "OUTCOMES", "PHASES", "ROLES", "Sample", "SlowCallback",
    "SlowIteration", "SubprocessExit", "TaskDone", "TaskLint", "TransportClosed",
}  # fmt: skip
PUBLIC_ASGI = {"Middleware"}
PUBLIC_TESTING = {"Recorder", "StepClock"}

THIRD_PARTY = "('prometheus_client', 'opentelemetry', 'obsloop_exporters', 'uvloop', 'uvicorn', 'pytest')"


def names_in(module: types.ModuleType) -> set[str]:
    """Names without an underscore that a module offers as its own: no modules, nothing imported from elsewhere."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name != "annotations"
        and not (inspect.isclass(value) and value.__module__.partition(".")[0] != "obsloop")
    }


def test_the_public_names_are_these():
    """obsloop, and what tests of users need."""
    assert names_in(obsloop) == PUBLIC
    assert names_in(obsloop.asgi) == PUBLIC_ASGI
    assert names_in(obsloop.testing) == PUBLIC_TESTING
    assert names_in(obsloop.events) == PUBLIC_EVENTS
    assert isinstance(obsloop.__version__, str)


def test_every_public_name_has_a_docstring():
    """What a user meets explains itself."""
    for name in PUBLIC:
        value = getattr(obsloop, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert inspect.getdoc(getattr(value, method)), f"{name}.{method}"


def test_the_core_is_one_of_two():
    """Compiled where it was built, unless it is switched off."""
    assert obsloop.core in {"pure", "compiled"}
    assert output("import obsloop; print(obsloop.core)", OBSLOOP_PURE="1") == "pure\n"


def test_importing_it_loads_the_standard_library_only():
    """Whatever is installed beside it; and no server, no HTTP, before one is asked for."""
    heavy = "('http.server', 'http.client', 'urllib.request', 'importlib.metadata', 'email', 'json', 'unittest')"
    assert (
        output(f"""
        import sys, asyncio
        before = set(sys.modules)
        import obsloop
        new = {{name for name in sys.modules if name not in before}}
        roots = {{name.partition(".")[0] for name in new}} - sys.stdlib_module_names - {{"obsloop"}}
        print([root for root in roots if "cython" not in root])  # entries that a compiled module makes, without a file
        print([name for name in {THIRD_PARTY} if name in sys.modules])
        print([name for name in {heavy} if name in new])
        rare = ("obsloop.service.server", "obsloop.cli", "obsloop.integrations.pytest_plugin")
        print([name for name in new if name.startswith(rare)])
        """)
        == "[]\n[]\n[]\n[]\n"
    )


def test_importing_it_does_nothing_to_asyncio():
    """No thread, no policy, no patched method: only who asks for an observed loop gets one."""
    assert (
        output("""
        import asyncio, threading
        def parts():
            names = 'BaseEventLoop SelectorEventLoop Handle TimerHandle Task'.split()
            return [dict(vars(getattr(asyncio, name))) for name in names]
        before = parts()
        import obsloop
        print(parts() == before, threading.active_count())
        loop = asyncio.new_event_loop()
        print(isinstance(loop, obsloop.Loop))
        loop.close()
        """)
        == "True 1\nFalse\n"
    )
