"""Who may import whom: the core needs nothing, and exporters use what a stranger could use."""

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import obsloop
import obsloop_exporters
from obsloop_exporters.prometheus import Exporter

CORE = sorted(Path(obsloop.__file__).parent.rglob("*.py"))
EXPORTERS = sorted(Path(obsloop_exporters.__file__).parent.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Every name that `file` imports, in any function too, as `module` or `module.name`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


LOADED = """
import sys, sysconfig
before = set(sys.modules)
import obsloop
for name in sorted(set(sys.modules) - before):
    top = name.partition(".")[0]
    file = getattr(sys.modules[name], "__file__", None) or ""
    # Interpreters keep modules of their own build beside the library that no list names.
    own = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    # What Cython keeps in sys.modules for the extension modules of a process has no file: it is loaded from nowhere.
    cython = top.startswith(("_cython_", "cython_runtime")) and not file
    if top not in sys.stdlib_module_names and not own and not cython:
        print(top)
"""


def test_importing_obsloop_loads_the_standard_library_only():
    """A program that is observed loads nothing that it would not have loaded, but us."""
    out = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    assert set(out.split()) == {"obsloop"}


@pytest.mark.parametrize("file", CORE, ids=lambda path: path.relative_to(CORE[0].parent).as_posix())
def test_the_core_never_imports_an_exporter(file):
    """Exporters are found by their entry point, ours like a stranger's."""
    assert [name for name in imported(file) if name.partition(".")[0] == "obsloop_exporters"] == []


@pytest.mark.parametrize("file", EXPORTERS, ids=lambda path: path.name)
def test_exporters_use_public_names_only(file):
    """Nothing of obsloop that begins with an underscore, by import or by attribute, but its version."""
    public = {f"obsloop.{name}" for name in vars(obsloop) if not name.startswith("_") or name == "__version__"}
    public |= {f"obsloop.events.{name}" for name in obsloop.events.__all__}
    used = {name for name in imported(file) if name.partition(".")[0] == "obsloop" and name != "obsloop"}
    assert used <= public
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "obsloop":
            assert f"obsloop.{node.attr}" in public


def test_the_package_itself_loads_no_client():
    """`import obsloop_exporters` is free; one pays for the exporter that one imports."""
    script = "import sys, obsloop_exporters; print({'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == "set()\n"


def test_an_exporter_that_sends_is_begun_by_its_entry_point():
    """Called without arguments, it exports through the global MeterProvider; no other exporter's client is loaded."""
    script = """
from importlib.metadata import entry_points
(entry,) = entry_points(group="obsloop.exporters", name="otel_metrics")
begin = entry.load()
import sys
print("prometheus_client" in sys.modules, "opentelemetry.sdk" in sys.modules)
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
begin()
print(reader.get_metrics_data().resource_metrics[0].scope_metrics[0].scope.name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False False\nobsloop\n", "")


def test_the_service_finds_the_exporter_by_its_entry_point():
    """Made without arguments, it renders for a client that says nothing."""
    (entry,) = entry_points(group="obsloop.exporters", name="prometheus")
    exporter = entry.load()()
    assert type(exporter) is Exporter
    content_type, body = exporter.render(None)
    assert content_type.startswith("text/plain")
    assert isinstance(body, bytes)
