"""The house: floors that import downward only, one map, and files that can be read in one sitting."""

import ast
import graphlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"obsloop": ROOT / "obsloop", "obsloop_exporters": ROOT / "exporters" / "obsloop_exporters"}

# THE list of floors, ground first. A module imports from lower floors and from its own folder.
FLOORS = (
    {"base", "events", "_version"},
    {"introspect"},
    {"instruments"},
    {"metrics"},
    {"hotpath", "profile"},
    {"probes", "tasks"},
    {"blocking"},
    {"group"},
    {"service"},
    {"loop", "top"},
    {"integrations", "cli", "asgi", "testing"},
    {"__init__", "__main__"},
    {"obsloop_exporters"},
)
MOST_LINES = 400
LONGER: dict[str, str] = {}


@cache
def modules() -> dict[str, Path]:
    """Every Python module of the two packages by dotted name, and the compiled core."""
    found: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found["obsloop.hotpath.compiled.core"] = ROOT / "obsloop/hotpath/compiled/core.pyx"
    return found


def floor_of(module: str) -> tuple[str, int]:
    """The folder or file of the first level that a module belongs to, and its floor."""
    package, _, rest = module.partition(".")
    room = package if package != "obsloop" else rest.partition(".")[0] or "__init__"
    return room, next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def names_imported(module: str, path: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere: at its top, in functions, for types only, by ``import_module``."""
    if path.suffix == ".pyx":
        for part in [path, *path.parent.glob("*.pxi")]:
            for folder, names in re.findall(r"^from (obsloop[\w.]*) import (.*)$", part.read_text(), re.MULTILINE):
                yield from (f"{folder}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip())
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            folder = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{folder}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


@cache
def arrows() -> frozenset[tuple[str, str]]:
    """Which module imports which, within the two packages."""
    found = set()
    for module, path in modules().items():
        for name in names_imported(module, path):
            target = name if name in modules() else name.rpartition(".")[0]
            if target in modules() and target != module:
                found.add((module, target))
    return frozenset(found)


def test_imports_go_downward():
    """Also those within functions and those for types only."""
    wrong = []
    for module, target in sorted(arrows()):
        (room, floor), (below, ground) = floor_of(module), floor_of(target)
        if room != below and ground >= floor:
            wrong.append(f"{module} (floor {floor + 1}) imports {target} (floor {ground + 1})")
    assert wrong == []


def folders() -> list[str]:
    """Every folder with modules, as a dotted name."""
    return sorted({module.rpartition(".")[0] for module in modules() if "." in module} | {"obsloop"})


@pytest.mark.parametrize("folder", folders())
def test_no_folder_has_a_circle_inside(folder):
    """Its files and its folders import each other in one direction."""

    def child(module: str) -> str:
        return module.removeprefix(f"{folder}.").partition(".")[0]

    graph: dict[str, set[str]] = {}
    for module, target in arrows():
        if module.startswith(f"{folder}.") and target.startswith(f"{folder}.") and child(module) != child(target):
            graph.setdefault(child(module), set()).add(child(target))
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def test_there_is_no_circle_at_all():
    """Module by module."""
    graph: dict[str, set[str]] = {}
    for module, target in arrows():
        graph.setdefault(module, set()).add(target)
    list(graphlib.TopologicalSorter(graph).static_order())


def files() -> set[str]:
    """Every source file of the package, as the map names it."""
    package = PACKAGES["obsloop"]
    return {
        path.relative_to(package).as_posix()
        for pattern in ("*.py", "*.pyx", "*.pxi", "*.pxd", "*.h")
        for path in package.rglob(pattern)
        if path.name != "__init__.py"
    }


def test_every_file_is_on_the_map():
    """Once, in the head of ``obsloop/__init__.py``; and the map names no file that is not there."""
    on_it: list[str] = []
    path: list[tuple[int, str]] = []
    for line in (PACKAGES["obsloop"] / "__init__.py").read_text().splitlines():
        match = re.match(r"#( +)(\S+\.(?:pyx|pxi|pxd|py|h)|\S+/) ", line)
        if not match:
            continue
        depth = len(match[1])
        path = [entry for entry in path if entry[0] < depth]
        if match[2].endswith("/"):
            path.append((depth, match[2]))
        else:
            on_it.append("".join(name for _, name in path) + match[2])
    assert len(on_it) == len(set(on_it)), "a file is on the map twice"
    assert set(on_it) == files()


def test_files_are_short():
    """A file that needs a second sitting is two files."""
    long = {
        name: lines
        for name in files()
        if (lines := len((PACKAGES["obsloop"] / name).read_text().splitlines())) > MOST_LINES and name not in LONGER
    }
    assert long == {}


def test_tests_mirror_the_folders():
    """Who changes a folder finds its tests in a folder of the same name."""
    package = PACKAGES["obsloop"]
    folders = {path.parent.relative_to(package).parts[0] for path in package.rglob("*.py") if path.parent != package}
    assert {folder for folder in folders if not list((ROOT / "tests" / folder).rglob("test_*.py"))} == set()
