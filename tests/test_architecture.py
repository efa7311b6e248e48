"""The house: which room may import which. A room is a package or a file at the top level; arrows go down only.

ARCHITECTURE.md draws it. Each run prints its floors and arrows as they are.
"""

import ast
import itertools
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from openscans.system import logs

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "openscans"

TOP_LEVEL = {"main", "config", "model_manager", "inference"}
"""The only files of code at the top level."""

PLAIN = {"errors", "types", "progress"}
"""Rooms that everybody may use: they hold no work, only what passes between the others."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "version": set(),
    "progress": {"errors", "types"},
    "system": {"errors"},
    "weights": PLAIN | {"system"},
    "volumes": PLAIN | {"system"},
    "networks": PLAIN | {"system"},
    "segmentation": PLAIN | {"system", "networks", "volumes"},
    "exports": PLAIN | {"system", "volumes", "segmentation"},
    "sources": PLAIN | {"system"},
    "jobs": PLAIN | {"system", "weights", "sources"},
    "server": PLAIN | {"system", "weights", "jobs", "exports", "version"},
    "config": {"errors", "system"},
    "inference": PLAIN | {"system", "networks", "volumes", "segmentation"},
    "model_manager": PLAIN | {"system", "weights"},
    "main": PLAIN | TOP_LEVEL | {"system", "networks", "weights", "jobs", "server", "version"},
}

MOST_FLOORS, MOST_ARROWS = 7, 80

ONLY_USERS = {
    "pydicom": {"volumes"},
    "nibabel": {"volumes"},
    "SimpleITK": {"volumes"},
    "imagecodecs": {"volumes"},
    "torch": {"networks"},
    "openvino": {"networks"},
    "cc3d": {"networks", "segmentation"},
    "totalsegmentator": {"weights"},
    "httpx": {"weights"},
    "multiprocessing": {"main", "jobs"},
    "fastapi": {"server"},
    "pydantic": {"server", "jobs"},
    "sse_starlette": {"server"},
    "uvicorn": {"server"},
}


def room_of(path: Path) -> str:
    """The package that the module lies in, or the module itself where it lies in none."""
    place = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT)
    return place.parts[0].removesuffix(".py")


def product_files() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *PACKAGE.rglob("*.py")])


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names of all modules that are imported anywhere in the file, and of what is taken from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def arrows() -> frozenset[tuple[str, str]]:
    """Room → room, for every import across rooms."""
    modules = {module_of(path): room_of(path) for path in product_files()}
    return frozenset(
        (room_of(path), modules[name])
        for path in product_files()
        for name in imports_of(path) & modules.keys()
        if modules[name] not in (room_of(path), "__init__")
    )


def floor_of(room: str) -> int:
    """1 for a room that imports none, else one above the highest room that it imports."""
    return 1 + max((floor_of(below) for above, below in arrows() if above == room), default=0)


def test_the_top_level_is_four_files() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == TOP_LEVEL


def test_every_room_is_in_the_table() -> None:
    assert {room_of(path) for path in product_files()} - {"__init__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    assert {below for above, below in arrows() if above == room} <= MAY_IMPORT[room]


def test_the_package_imports_nothing_from_the_top_level() -> None:
    found = {
        (module_of(path), name)
        for path in PACKAGE.rglob("*.py")
        for name in imports_of(path)
        if name.split(".")[0] in TOP_LEVEL
    }
    assert found == set()


def test_the_house_has_few_floors_and_arrows_and_no_circle(capsys: pytest.CaptureFixture[str]) -> None:
    rooms = set(itertools.chain(*arrows()))
    floors = {room: floor_of(room) for room in rooms}  # a circle would never end: RecursionError
    by_floor = {number: sorted(room for room in rooms if floors[room] == number) for number in set(floors.values())}
    lines = [f"{number}  {', '.join(by_floor[number])}" for number in sorted(by_floor, reverse=True)]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, f"{len(arrows())} arrows between {len(rooms)} rooms", ""]))
    assert max(floors.values()) <= MOST_FLOORS
    assert len(arrows()) <= MOST_ARROWS


@pytest.mark.parametrize(("library", "rooms"), ONLY_USERS.items())
def test_a_library_is_used_only_in_the_rooms_that_know_it(library: str, rooms: set[str]) -> None:
    users = {room_of(path) for path in product_files() if library in {name.split(".")[0] for name in imports_of(path)}}
    assert users <= rooms


def test_a_public_class_name_exists_once() -> None:
    names = Counter(
        node.name
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize("path", [path for path in product_files() if path.stem != "logs"], ids=module_of)
def test_a_module_s_lines_are_written_to_the_log(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    asked = [argument for call in calls if ast.unparse(call.func).endswith("getLogger") for argument in call.args]
    assert all(ast.literal_eval(name).startswith(f"{logs.ROOT}.") for name in asked)


def test_every_module_is_reached_by_another() -> None:
    reached: set[str] = set()
    for path in product_files():
        reached |= imports_of(path)
    reached |= {name for path in (ROOT / "bundle").glob("*.py") for name in imports_of(path)}
    packages = {module_of(path) for path in product_files() if path.name == "__init__.py"}
    assert {module_of(path) for path in product_files()} - packages - {"main"} <= reached


@pytest.mark.parametrize("path", product_files(), ids=module_of)
def test_a_module_says_in_its_first_sentence_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
