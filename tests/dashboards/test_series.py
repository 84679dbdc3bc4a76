"""How many series one loop has: what a server of Prometheus pays for each worker."""

import re
from pathlib import Path

from obsloop_exporters.prometheus import Exporter
from tests.exporters.programs import everything, run

GOAL = 400
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
    # The same holds for the causes of blocks.
    causes = {found[1] for line in series if (found := re.search('cause="(\\w+)"', line))}
    others = tuple(f'cause="{cause}"' for cause in sorted(causes)[1:])
    series = [line for line in series if not any(other in line for other in others)]
    assert 300 < len(series) <= config.SERIES_PER_LOOP
    assert config.SERIES_PER_LOOP <= GOAL
