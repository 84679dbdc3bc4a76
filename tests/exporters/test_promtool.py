"""promtool, the judge of names and formats that comes with Prometheus."""

import subprocess

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest

from obsloop_exporters.prometheus import Collector, Exporter
from tests.exporters.programs import everything, little, run, run_in_thread
from tests.parts import needed


def check(text: bytes) -> tuple[int, str]:
    """What `promtool check metrics` says about `text`."""
    promtool = needed("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("way", ["exporter", "registry"])
def test_metrics_of_a_full_program_are_clean(way):
    """No warning about a name, a unit, a type or a help, with every metric filled."""
    registry = CollectorRegistry()
    registry.register(Collector())
    text = run(everything(lambda: Exporter().render(None)[1] if way == "exporter" else generate_latest(registry)))
    assert check(text) == (0, "")


def test_metrics_with_hostile_names_are_clean():
    """Escaped so that Prometheus's own parser takes them."""
    for name in ('"quoted"', "back\\slash\\", "größe 🦔", "two\nlines", "nul\0nul", "half \udc80 pair"):
        run_in_thread(little, name)
    run(little)
    assert check(Exporter().render(None)[1]) == (0, "")


def test_the_judge_would_say_so():
    """A counter without `_total` is refused: the judge is awake."""
    code, said = check(b"# HELP obsloop_things Things.\n# TYPE obsloop_things counter\nobsloop_things 1\n")
    assert code != 0
    assert "_total" in said
