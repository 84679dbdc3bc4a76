"""`opentelemetry-instrument` turns us on with no flag, can be told not to, and never is the worse for us."""

import dataclasses
import shutil
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import obsloop
from obsloop_exporters.otel_instrumentor import ObsloopInstrumentor
from tests.exporters.otlp import HttpReceiver, receiving
from tests.exporters.traces import LIMIT, spans_of, started
from tests.support import output, program

SCRIPT = """
    import asyncio
    import time


    async def main():
        await asyncio.sleep(0.15)
        time.sleep(0.2)
        await asyncio.sleep(0)
        print(type(asyncio.get_running_loop()).__module__)


    asyncio.run(main())
"""
COMMAND = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))


def run(folder: Path, receiver: HttpReceiver, **environ: str) -> tuple[str, str]:
    """What the script prints and says under `opentelemetry-instrument`; it must succeed."""
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    tell = {
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base,
    }  # fmt: skip
    with started([COMMAND, sys.executable, "script.py"], folder, **tell, **environ) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    return out.strip(), err


def scopes(receiver: HttpReceiver) -> set[str]:
    """Who sent metrics or spans."""
    metrics = {s.scope.name for request in receiver.requests for r in request.resource_metrics for s in r.scope_metrics}
    return metrics | {span.scope for span in spans_of(receiver)}


def test_a_script_that_knows_nothing_of_us(tmp_path):
    """Its loop is observed, and the span of what blocked it and our metrics arrive; nothing is said."""
    with receiving(HttpReceiver) as receiver:
        out, err = run(tmp_path, receiver)
        assert (out, [line for line in err.splitlines() if "obsloop" in line]) == ("obsloop.loop.loop", [])
        (span,) = [span for span in spans_of(receiver) if span.scope == "obsloop"]
        assert (span.name, span.seconds >= 0.2) == ("asyncio callback __main__.main", True)
        assert "asyncio.eventloop.iterations" in receiver.last


@pytest.mark.once
def test_it_can_be_left_out(tmp_path):
    """By OpenTelemetry's own variable, as any instrumentation."""
    with receiving(HttpReceiver) as receiver:
        out, _ = run(tmp_path, receiver, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="other, obsloop")
        assert out == "asyncio.unix_events"
        assert "obsloop" not in scopes(receiver)


@pytest.mark.once
@pytest.mark.parametrize("variable", ["OBSLOOP_UNHEALTHY_AFTER", "OBSLOOP_SPANS_PER_MINUTE", "OBSLOOP_NO_SUCH"])
def test_a_bad_variable_is_one_line_and_the_program_is_observed(tmp_path, variable):
    """With the default; an instrumentation that raised would take the others with it."""
    with receiving(HttpReceiver) as receiver:
        out, err = run(tmp_path, receiver, **{variable: "soon"})
        assert out == "obsloop.loop.loop"
        (line,) = [line for line in err.splitlines() if variable in line]
        assert line.endswith(("obsloop uses the default, 1.0.", "obsloop uses the default, 60.", "obsloop ignores it."))
        assert "obsloop" in scopes(receiver)


def test_it_is_what_instrumentations_are():
    """Found by its entry point, made without arguments; one, however often it is made; no dependency to check."""
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="obsloop")
    assert entry.load() is ObsloopInstrumentor
    from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

    assert get_dist_dependency_conflicts(entry.dist) is None
    public = {name for name in vars(BaseInstrumentor) if not name.startswith("_")}
    assert public <= set(dir(ObsloopInstrumentor))
    assert tuple(ObsloopInstrumentor().instrumentation_dependencies()) == ()


def test_the_variables_are_listed():
    """Every setting of both kinds, by the name of its variable, and nothing that begins with ``OTEL_``."""
    (entry,) = entry_points(group="opentelemetry_environment_variables", name="obsloop")
    listed = {name: value for name, value in vars(entry.load()).items() if name.startswith(("OBSLOOP_", "OTEL_"))}
    fields = [*dataclasses.fields(obsloop.Settings), *dataclasses.fields(obsloop.SpanSettings)]
    assert listed == {f"OBSLOOP_{field.name.upper()}": f"OBSLOOP_{field.name.upper()}" for field in fields}
    for settings in (obsloop.Settings, obsloop.SpanSettings):
        assert settings.from_env({}) == settings()
        assert set(settings.variables()) <= listed.keys()


def test_on_and_off_again_in_a_program():
    """From a line of the program's; off again, new loops are the program's own, uvloop's too; and on once more."""
    out = output("""
        import asyncio, logging
        logging.basicConfig(format="%(message)s", stream=__import__("sys").stdout)
        import uvloop
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from obsloop_exporters.otel_instrumentor import ObsloopInstrumentor

        reader, memory = InMemoryMetricReader(), InMemorySpanExporter()
        metrics, spans = MeterProvider(metric_readers=[reader]), TracerProvider()
        spans.add_span_processor(SimpleSpanProcessor(memory))

        async def main():
            await (await asyncio.create_subprocess_exec("true")).wait()
            return type(asyncio.get_running_loop()).__module__

        def look():
            data = reader.get_metrics_data()
            print(asyncio.run(main()), len(memory.get_finished_spans()), bool(data and data.resource_metrics))

        def uv():
            loop = uvloop.new_event_loop()
            print(type(loop).__module__)
            loop.close()

        look()
        for _ in range(2):
            ObsloopInstrumentor().instrument(tracer_provider=spans, meter_provider=metrics)
            print(ObsloopInstrumentor().is_instrumented_by_opentelemetry)
            ObsloopInstrumentor().instrument()
            look()
            ObsloopInstrumentor().uninstrument()
            look()
            uv()
        ObsloopInstrumentor().uninstrument()
    """)
    on = ["True", "obsloop is on already"]
    assert out.splitlines() == [
        "asyncio.unix_events 0 False",
        *on, "obsloop.loop.loop 1 True", "asyncio.unix_events 1 False", "uvloop",
        *on, "obsloop.loop.loop 2 True", "asyncio.unix_events 2 False", "uvloop",
        "obsloop is off already",
    ]  # fmt: skip


def test_the_api_is_all_that_is_needed():
    """Where neither the SDK nor OpenTelemetry's instrumentation package can be imported."""
    out = output("""
        import asyncio, sys, time

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("opentelemetry.sdk", "opentelemetry.instrumentation", "opentelemetry.semconv")):
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Missing())
        from obsloop_exporters.otel_instrumentor import ObsloopInstrumentor
        import obsloop_exporters.otel_environment_variables
        ObsloopInstrumentor().instrument()

        async def main():
            time.sleep(0.15)
            await asyncio.sleep(0)
            print(type(asyncio.get_running_loop()).__module__)

        asyncio.run(main())
        ObsloopInstrumentor().uninstrument()
    """)
    assert out == "obsloop.loop.loop\n"


@pytest.mark.once
def test_under_obsloop_run_it_does_not_matter_who_was_first(tmp_path):
    """Observed once, by whoever came first; the figures and spans are exported all the same."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    with receiving(HttpReceiver) as receiver:
        done = program(
            f"""
            import subprocess, sys
            sys.exit(subprocess.run(
                [sys.executable, "-m", "obsloop", "run", "--address", "127.0.0.1:0", {COMMAND!r}, sys.executable,
                 "script.py"], cwd={str(tmp_path)!r}
            ).returncode)
            """,
            OTEL_TRACES_EXPORTER="otlp", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.base,
            PYTHONPATH=":".join(path for path in sys.path if path),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["obsloop.loop.loop"]
        assert [span.name for span in spans_of(receiver) if span.scope == "obsloop"] == [
            "asyncio callback __main__.main"
        ]
