"""Build the wheel and try it in an empty environment and another folder, where the checkout cannot be used instead.

    python tools/try_wheel.py DIR

The wheel stays in DIR.
"""

# ruff: noqa: S603  (it runs what it has just installed)

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Needs every part: the core, the command and its bootstrap folder, the service, the exporter and its entry point.
_PROGRAM = """
import asyncio, os, sys, urllib.request

async def main():
    loop = asyncio.get_running_loop()
    assert "site-packages" in sys.modules[type(loop).__module__].__file__, type(loop)
    address = os.environ["OBSLOOP_ADDRESS"]
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{address}/metrics").read().decode())
    # Labels follow the name. Which ones is the exporter's matter, and its tests'.
    assert 'asyncio_eventloop_time_seconds_total{asyncio_eventloop_name="main",state="idle"' in body, body
    print("the wheel's loop is observed, and served")

asyncio.run(main())
"""


def main() -> int:
    """Build, install and try the wheel. Raise CalledProcessError if one of these fails."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1]).resolve()
    for old in target.glob("obsloop-*.whl"):
        old.unlink()
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, ROOT, cwd=ROOT)
    (wheel,) = target.glob("obsloop-*.whl")
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder)
        # Debian's Python needs another package to put a pip into an environment. So use this environment's pip.
        run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=elsewhere)
        binaries = elsewhere / "env" / "bin"
        pip = (sys.executable, "-m", "pip", "--python", binaries / "python")
        run(*pip, "install", "--quiet", f"{wheel}[prometheus]", cwd=elsewhere)
        (elsewhere / "program.py").write_text(_PROGRAM)
        run(binaries / "obsloop", "--version", cwd=elsewhere)
        run(binaries / "obsloop", "run", "--address", f"127.0.0.1:{free_port()}", "program.py", cwd=elsewhere)
    print(f"{wheel.name} is good.")
    return 0


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, cwd=cwd, check=True, stdin=subprocess.DEVNULL)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
