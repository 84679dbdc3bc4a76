"""Draw the Grafana dashboards from live data, with Perses's panel components in headless Chromium.

    python tools/pictures/make.py [--minutes 5] [--again]

Writes dashboards/pictures/overview-{dark,light}.png, which the README shows, and each row of each dashboard into
build/pictures/, for you to check. `--again` draws the data of the last run, without running workers and load.
"""

import argparse
import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from live import SCRAPE, LiveError, Prometheus, collect  # noqa: E402
from mapping import UnknownError, Window, rows  # noqa: E402

BOARDS = ("obsloop-overview", "obsloop-loops")
KEPT = ROOT / "dashboards" / "pictures"
WIDTH = 1200
LARGEST = 150_000
"""The most bytes of a picture that is kept."""
RATE_INTERVAL = 15
"""Seconds. Grafana takes four scrapes or more; a p99 over four seconds is mostly chance."""


def main() -> int:
    """Scrape, draw, keep two pictures. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the load lasts (default 5)")
    parser.add_argument("--again", action="store_true", help="draw the data of the last run")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "pictures", help="for data and other pictures")
    options = parser.parse_args()
    folder = options.folder.resolve()
    try:
        chromium = browser()
        if options.again and not (folder / "window.json").exists():
            raise LiveError(f"{folder} has no scraped data; run without --again first")
        if not options.again:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        bundle(folder)  # first, so that missing packages are reported before the minutes of load
        if not options.again:
            print(f"Two workers, their load and Prometheus run for {options.minutes:g} minutes ...", flush=True)
            begun, ended = collect(folder, options.minutes * 60)
            # The first rates have too few scrapes; during the last scrapes a worker may end.
            (folder / "window.json").write_text(json.dumps([begun + 2 * RATE_INTERVAL, ended - 2]))
        ask_everything(folder)
        shoot(folder, chromium)
        keep(folder)
    except (LiveError, UnknownError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


def ask_everything(folder: Path) -> None:
    """Send every panel's queries to Prometheus, and write the answers for the page."""
    start, end = json.loads((folder / "window.json").read_text())
    step = max(SCRAPE, (end - start) // 150)
    window = Window(end - (end - start) // step * step, end, step, max(RATE_INTERVAL, 4 * SCRAPE))
    boards: dict[str, Any] = {}
    with Prometheus(folder, {}).running() as prometheus:
        for name in BOARDS:
            board = json.loads((ROOT / "dashboards" / "generated" / f"{name}.json").read_text())
            boards[name] = rows(board, window, lambda query, instant: prometheus.ask(query, window, instant))
    for name, found in boards.items():
        for panel in (panel for row in found for panel in row["panels"]):
            if not panel["heat"]["cells"] if "heat" in panel else not any(panel["results"]):
                print(f"  {name}: {panel['title']!r} has no data", flush=True)
    shown = {"start": window.start * 1000, "end": window.end * 1000, "step": window.step * 1000}
    (folder / "data.json").write_text(json.dumps({"window": shown, "boards": boards}, allow_nan=False))


def bundle(folder: Path) -> None:
    """Bundle the page and Perses into one file."""
    installed = HERE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        run(["npm", "ci", "--no-audit", "--no-fund"])
    run([
        str(HERE / "node_modules" / ".bin" / "esbuild"), "page.jsx", "--bundle", "--minify", "--jsx=automatic",
        "--loader:.woff2=dataurl", "--loader:.woff=empty", '--define:process.env.NODE_ENV="production"',
        # Perses loads plugins at run time with it; here they are in the bundle.
        "--external:@perses-dev/explore", "--log-level=warning", f"--outfile={folder / 'page.js'}",
    ])  # fmt: skip
    (folder / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="page.css">'
        # So that two lines of a legend fit into the height that Perses gives it.
        "<style>ul .MuiListItemText-root { margin-top: 0; margin-bottom: 0 }</style>"
        '<div id="page"></div><script src="page.js"></script>\n'
    )


def browser() -> str:
    """Return the path of Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise LiveError("chromium is missing: install the package `chromium`")
    return found


def shoot(folder: Path, chromium: str) -> None:
    """Take a picture of each row, dark and light, and those that are kept."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data = json.loads((folder / "data.json").read_text())["boards"]
        shots = []
        for board in BOARDS:
            for mode in ("dark", "light"):
                name = board.removeprefix("obsloop-")
                parts = [
                    {"file": str(folder / f"{name}-{index}-{mode}.png"), "selectors": [f"#row-{index}"]}
                    for index in range(len(data[board]))
                ]
                url = f"http://127.0.0.1:{server.server_port}/index.html?board={board}&mode={mode}"
                shots.append({"url": url, "width": WIDTH, "parts": parts})
        for shot in shots[:2]:
            mode = str(shot["url"]).rpartition("=")[2]
            shot["parts"].append({"file": str(folder / f"kept-{mode}.png"), "selectors": ["#row-0"]})
        run(["node", "shoot.mjs", chromium], json.dumps(shots))
        server.shutdown()


def keep(folder: Path) -> None:
    """Save the two pictures for the README, with fewer colours: a dashboard has few."""
    KEPT.mkdir(exist_ok=True)
    for mode in ("dark", "light"):
        path = KEPT / f"overview-{mode}.png"
        picture = Image.open(folder / f"kept-{mode}.png").convert("RGB")
        fewer(picture).save(path, optimize=True)
        size = path.stat().st_size
        print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {size:,} bytes", flush=True)
        if size > LARGEST:
            raise LiveError(f"{path} has {size:,} bytes, but only {LARGEST:,} are allowed: show fewer rows or colours")


def fewer(picture: Image.Image) -> Image.Image:
    """Reduce a picture to its 256 most frequent colours. Quantizers mix similar grounds, and lose thin lines."""
    data = picture.tobytes()
    counted = Counter(data[at : at + 3] for at in range(0, len(data), 3))
    kept = [colour for colour, _ in counted.most_common(256)]

    def nearest(colour: bytes) -> int:
        return min(range(len(kept)), key=lambda n: sum((a - b) ** 2 for a, b in zip(kept[n], colour, strict=True)))

    number = {colour: nearest(colour) for colour in counted}
    pixels = bytes(number[data[at : at + 3]] for at in range(0, len(data), 3))
    made = Image.frombytes("P", picture.size, pixels)
    made.putpalette(b"".join(kept))
    return made


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A handler that serves files without logging."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def run(command: list[str], given: str | None = None) -> None:
    """Run a command in this folder. If it fails, raise LiveError with its output."""
    if shutil.which(command[0]) is None:
        raise LiveError(f"{command[0]} is missing: install the packages `nodejs` and `npm`")
    done = subprocess.run(command, cwd=HERE, input=given, text=True, capture_output=True, check=False)
    if done.returncode:
        raise LiveError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
