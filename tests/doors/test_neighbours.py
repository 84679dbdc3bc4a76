"""Tools that change asyncio, on obsloop's loop: they say what they say on asyncio's, and obsloop what it says alone."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors.running import LIMIT

pytestmark = [pytest.mark.clients, pytest.mark.once]

SHOP = """
import asyncio, time

def block():
    time.sleep(0.4)

async def inner():
    await asyncio.sleep(0.01)
    block()
    await asyncio.sleep(0.01)
    return 7

async def work():
    assert await asyncio.create_task(inner(), name="inner") == 7
    asyncio.get_running_loop().call_soon(block)
    await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(asyncio.sleep(0.01))
"""
BLOCKS = 1 + next(i for i, line in enumerate(SHOP.splitlines()) if "time.sleep" in line)
"""The line that blocks."""

PROGRAM = """
import asyncio, json, time
heard = []
{first}
import obsloop
from obsloop.testing import Recorder

async def main():
    {begin}
    import shop
    {work}

with Recorder() as events:
    with asyncio.Runner(loop_factory=obsloop.new_event_loop) as runner:
        runner.run(main())
    end = time.monotonic() + {limit}
    while len(seen := [each for each in events.unblocked if each.culprit_function == "shop.block"]) < 2:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
{last}
found = obsloop.snapshots()["main"]
print("SEEN", json.dumps({{
    "lines": [[each.culprit_filename, each.culprit_lineno] for each in seen],
    "blocked": sum(s for (name, _), s in found["asyncio.eventloop.block.time"].items() if name == "shop.block"),
    "created": found.value("asyncio.task.created"),
    "finished": sum(found["asyncio.task.finished"].values()),
    "active": found.value("asyncio.task.active"),
    "core": obsloop.core,
    "heard": heard,
}}))
"""

SPANS = """
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
"""
LOGFIRE = SPANS + (
    "import logfire\n"
    "logfire.configure(send_to_logfire=False, console=False,"
    " additional_span_processors=[SimpleSpanProcessor(exporter)])\n"
)
HEARD = 'heard += [span.attributes.get("logfire.msg", span.name) for span in exporter.get_finished_spans()]'


@dataclass(frozen=True)
class Neighbour:
    """How a program takes a tool in, and what the tool then says of the program."""

    says: tuple[str, ...] = ()
    """What is among `heard`, as the beginnings of texts."""
    first: str = ""
    """Before obsloop is imported."""
    begin: str = "pass"
    """In the running loop."""
    work: str = "await shop.work()"
    last: str = ""
    """When the loop has ended."""


SAID = ("inner slow", "block slow")
AIODEBUG = "tool.enable(0.3, lambda name, s: heard.append(('inner' if 'inner' in name else 'block') + ' slow'))"
LOGFIRES = ("Async task inner (inner) blocked for 0.", "Async callback block blocked for 0.")
NEIGHBOURS = {
    "aiodebug": Neighbour(SAID, "import aiodebug.log_slow_callbacks as tool", AIODEBUG),
    "aiodebug-first": Neighbour(SAID, f"import aiodebug.log_slow_callbacks as tool\n{AIODEBUG}"),
    "logfire": Neighbour(LOGFIRES, LOGFIRE, "logfire.log_slow_async_callbacks(0.3)", last=HEARD),
    "logfire-first": Neighbour(LOGFIRES, f"{LOGFIRE}logfire.log_slow_async_callbacks(0.3)", last=HEARD),
    "logfire-auto-tracing": Neighbour(
        ("Calling shop.block", "Calling shop.inner"),
        f"{LOGFIRE}logfire.install_auto_tracing(['shop'], min_duration=0)",
        last=HEARD,
    ),
    "sentry": Neighbour(
        ("inner",),
        "import sentry_sdk\nfrom sentry_sdk.integrations.asyncio import AsyncioIntegration\nsent = []",
        "sentry_sdk.init('http://key@127.0.0.1:9/1', integrations=[AsyncioIntegration()], traces_sample_rate=1.0,"
        " before_send_transaction=lambda event, hint: sent.append(event))",
        "with sentry_sdk.start_transaction(name='work'):\n        await shop.work()",
        "heard += [span['description'] for event in sent for span in event['spans']]",
    ),
    "opentelemetry": Neighbour(
        ("asyncio coro-inner",),
        SPANS
        + "from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor\n"
        + "from opentelemetry.sdk.trace import TracerProvider\n"
        + "provider = TracerProvider()\n"
        + "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        + "AsyncioInstrumentor().instrument(tracer_provider=provider)",
        last=HEARD,
    ),
    "ddtrace": Neighbour(
        ("child", "switch"),
        "import ddtrace\nfrom ddtrace.internal import core\nfrom ddtrace.trace import tracer",
        "ddtrace.patch(asyncio=True)\n"
        "    core.on('python.context.switch', lambda: 'switch' in heard or heard.append('switch'))",
        "with tracer.trace('work') as outer:\n"
        "        async def child():\n"
        "            with tracer.trace('child') as span:\n"
        "                if span.parent_id == outer.span_id: heard.append('child')\n"
        "        await asyncio.create_task(child())\n"
        "        await shop.work()",
    ),
    "newrelic": Neighbour(
        ("child",),
        "import newrelic.agent\nnewrelic.agent.initialize()\nnewrelic.agent.register_application(timeout=10.0)",
        work="""
    async def child():
        if newrelic.agent.current_transaction(active_only=False) is not None: heard.append('child')
    @newrelic.agent.background_task()
    async def work():
        await asyncio.create_task(child())
        await shop.work()
    await work()""",
    ),
    "greenback": Neighbour(
        ("7",),
        "import greenback",
        "await greenback.ensure_portal()",
        "def sync(): heard.append(str(greenback.await_(asyncio.sleep(0.01, 7))))\n    sync()\n    await shop.work()",
    ),
}
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:9", "DD_TRACE_STARTUP_LOGS": "false",
    "NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_MONITOR_MODE": "true", "NEW_RELIC_LICENSE_KEY": "0" * 40,
    "NEW_RELIC_APP_NAME": "shop",
    "OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE": "inner",
}  # fmt: skip
"""Without a network."""


def run(neighbour: Neighbour, folder: Path, **variables: str) -> dict:
    """Run the program beside the tool. Return what was seen."""
    (folder / "shop.py").write_text(SHOP)
    text = PROGRAM.format(
        first=neighbour.first, begin=neighbour.begin, work=neighbour.work, last=neighbour.last,
        limit=LIMIT,
    )  # fmt: skip
    (folder / "program.py").write_text(text)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OBSLOOP_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=kept | QUIET | variables, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=4 * LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    return json.loads(line.removeprefix("SEEN ")) | {"log": done.stderr}


@pytest.mark.parametrize("core", ["compiled", "pure"])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour(name, core, tmp_path):
    """The tool works, tasks are counted, and each block is blamed on the program's own line."""
    pure = {"OBSLOOP_PURE": "1"} if core == "pure" else {}
    seen = run(NEIGHBOURS[name], tmp_path, **pure)
    assert seen["core"] == core
    missing = [text for text in NEIGHBOURS[name].says if not any(text in said for said in seen["heard"])]
    assert not missing, (seen["heard"], seen["log"])
    assert seen["lines"] == [[str(tmp_path / "shop.py"), BLOCKS]] * 2, seen["log"]
    assert seen["blocked"] >= 0.8
    assert seen["created"] == seen["finished"] >= 7
    assert seen["active"] == 0


def test_an_ended_neighbour(tmp_path):
    """logfire's context manager puts asyncio's method back: then it hears no more."""
    ended = Neighbour(
        first=LOGFIRE,
        begin="with logfire.log_slow_async_callbacks(0.3):\n        await asyncio.sleep(0.01)",
        work="await asyncio.sleep(0.01)\n    await shop.work()",
        last=HEARD,
    )
    seen = run(ended, tmp_path)
    assert seen["heard"] == []
    assert len(seen["lines"]) == 2
