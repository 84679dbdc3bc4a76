"""What the benchmarks share: the loops compared, processes with equal conditions, and a word on the machine."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"

STOCK = "asyncio:SelectorEventLoop"
OURS = "obsloop:new_event_loop"
UVLOOP = "uvloop:new_event_loop"
HAS_UVLOOP = find_spec("uvloop") is not None


def cores() -> list[str]:
    """The cores that are there, the default first."""
    return ["compiled", "pure"] if find_spec("obsloop.hotpath.compiled.core") is not None else ["pure"]


def environ(core: str, default_malloc: bool = False) -> dict[str, str]:
    """The environment of a measured process.

    All sides get the same malloc thresholds: asyncio's 256 KiB reads otherwise swing fourfold with malloc's trimming.
    With `default_malloc` they get none, as users have it.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("OBSLOOP_")}
    env["PYTHONHASHSEED"] = "0"
    if not default_malloc:
        env |= {"MALLOC_TRIM_THRESHOLD_": "100000000", "MALLOC_MMAP_THRESHOLD_": "100000000"}
    return env | ({"OBSLOOP_PURE": "1"} if core == "pure" else {})


def child(core: str, module: str, *args: str, default_malloc: bool = False) -> Any:
    """What `python -m tests.bench.MODULE ARGS` prints, as JSON, in a fresh process on `core`.

    Where it says which core ran, that must be the one asked for.
    """
    command = [sys.executable, "-m", f"tests.bench.{module}", *args]
    done = subprocess.run(
        command, cwd=ROOT, env=environ(core, default_malloc), capture_output=True, text=True, timeout=600, check=False
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed on the {core} core:\n{done.stderr}")
    found = json.loads(done.stdout)
    if found.get("core") not in (None, core):
        raise SystemExit(f"the {core} core was asked for, the {found['core']} one ran: {' '.join(command)}")
    return found


def which_core() -> str | None:
    """In a measured process: the core that times its loops; None when obsloop is not even imported."""
    return getattr(sys.modules.get("obsloop"), "core", None)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next(
            (ln.partition(":")[2].strip() for ln in info.read_text().splitlines() if "model name" in ln), model
        )
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": dict(_versions("obsloop", "uvloop", "uvicorn", "fastapi", "h11", "httptools", "prometheus-client")),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


def _versions(*names: str) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def headline(title: str) -> None:
    """A report's first line."""
    found = machine()
    print(f"\n{title}\n{found['python']}, {found['cpu']}, {found['cpus']} CPUs, load {found['load'][0]}", flush=True)


def write(name: str, figures: Mapping[str, Any], path: Path | None = None) -> None:
    """Keep a report, with the machine, as `results/NAME.json` or where `path` says."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
