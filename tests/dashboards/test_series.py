"""How many series one loop has: what a server of Prometheus pays for each worker."""

from pathlib import Path

from obsloop_exporters.prometheus import Exporter
from tests.exporters.programs import everything, run

GOAL = 600
DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"


def test_series_of_one_loop_do_not_grow(monkeypatch, clean_metrics):
    """Of a program that fills every metric; a new label or bucket must say in the configuration what it costs."""
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    import config

    def scraped() -> str:
        return Exporter().render(None)[1].decode()

    text = run(everything(scraped))
    series = [line for line in text.splitlines() if "asyncio_eventloop_name=" in line and not line.startswith("#")]
    # On a busy machine other functions are slow too, and each of them adds a series. The program means one of them.
    slow = [line for line in series if line.startswith("asyncio_eventloop_callback_slow_total{")]
    (meant,) = [line for line in slow if '"time.sleep"' in line]
    series = [line for line in series if line not in slow or line == meant]
    assert 400 < len(series) <= config.SERIES_PER_LOOP
    assert config.SERIES_PER_LOOP <= GOAL
