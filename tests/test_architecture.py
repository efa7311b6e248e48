"""The house: which room may import which. Arrows go down only; the table is the picture in the README."""

import ast
from pathlib import Path

import pytest

import logs

ROOT = Path(__file__).resolve().parents[1]

PLAIN = {"errors", "findings", "progress"}
"""Rooms that everybody may use: they hold no work, only what passes between the others."""

MAY_IMPORT = {
    "errors": set(),
    "memory": {"errors"},
    "findings": set(),
    "progress": set(),
    "devices": set(),
    "logs": set(),
    "parent": set(),
    "neighbour": set(),
    "version": set(),
    "config": {"errors", "devices"},
    "schemas": PLAIN | {"devices"},
    "folder_walk": {"errors"},
    "access": {"errors", "folder_walk", "progress"},
    "grids": PLAIN,
    "volumes": PLAIN | {"folder_walk", "memory"},
    "networks": PLAIN | {"devices"},
    "cores": set(),
    "sums": {"cores"},
    "tiles": PLAIN | {"networks", "sums"},
    "vertebrae": PLAIN | {"grids"},
    "course": PLAIN | {"grids", "vertebrae"},
    "shelf": PLAIN | {"networks"},
    "preflight": PLAIN | {"grids", "memory", "networks", "tiles", "volumes"},
    "inference": PLAIN | {"course", "grids", "networks", "preflight", "shelf", "tiles", "vertebrae", "volumes"},
    "worker_child": PLAIN | {"inference", "logs"},
    "worker": PLAIN | {"worker_child", "logs"},
    "catalogue": PLAIN,
    "disk": PLAIN,
    "kept_files": PLAIN,
    "manifest": PLAIN | {"kept_files"},
    "archives": PLAIN | {"kept_files"},
    "patience": PLAIN,
    "refusals": PLAIN | {"patience"},
    "wire": PLAIN | {"patience", "refusals"},
    "partials": PLAIN | {"refusals", "wire"},
    "downloads": PLAIN | {"disk", "partials", "patience", "refusals", "wire"},
    "installation": PLAIN | {"archives", "catalogue", "disk", "downloads", "kept_files", "manifest"},
    "locks": set(),
    "claims": PLAIN | {"disk", "locks"},
    "transfers": PLAIN | {"catalogue"},
    "model_status": PLAIN | {"catalogue", "installation"},
    "arrivals": PLAIN
    | {"archives", "catalogue", "disk", "downloads", "installation", "model_status", "patience", "transfers"},
    "model_manager": PLAIN | {"arrivals", "catalogue", "claims", "installation", "model_status", "transfers"},
    "jobs": PLAIN,
    "identity": PLAIN | {"folder_walk"},
    "results": PLAIN | {"identity"},
    "detection": PLAIN | {"results"},
    "service": PLAIN | {"access", "config", "detection", "devices", "jobs", "model_manager", "schemas", "version"},
    "main": PLAIN
    | {
        "arrivals",
        "config",
        "detection",
        "jobs",
        "logs",
        "model_manager",
        "neighbour",
        "parent",
        "patience",
        "results",
        "service",
        "version",
        "worker",
        "worker_child",
    },
}

ONLY_USERS = {
    "pydicom": {"volumes"},
    "nibabel": {"volumes"},
    "SimpleITK": {"volumes"},
    "imagecodecs": {"volumes"},
    "torch": {"networks"},
    "openvino": {"networks"},
    "cc3d": {"vertebrae"},
    "totalsegmentator": {"catalogue"},
    "httpx": {"refusals", "wire"},
    "multiprocessing": {"main", "worker", "worker_child"},
    "fastapi": {"service"},
    "sse_starlette": {"service"},
    "uvicorn": {"service"},
}

TOP_LEVEL = sorted(path.stem for path in ROOT.glob("*.py"))
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")


def files_of(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def imports_of(room: str) -> set[str]:
    found = set()
    for path in files_of(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found


def loggers_of(room: str) -> set[str]:
    """Names of the loggers that ``room`` asks for, as they stand in the code."""
    nodes = (node for path in files_of(room) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger")]
    return {ast.unparse(argument).strip("'") for call in calls for argument in call.args}


def test_every_room_is_in_the_table() -> None:
    assert set(TOP_LEVEL) | {"networks", "service", "volumes"} == set(MAY_IMPORT)


@pytest.mark.parametrize(("room", "allowed"), MAY_IMPORT.items())
def test_a_room_imports_only_what_it_may(room: str, allowed: set[str]) -> None:
    ours = set(TOP_LEVEL) | set(PACKAGES)
    assert imports_of(room) & ours <= allowed | {room}


@pytest.mark.parametrize("room", sorted(set(MAY_IMPORT) - {"logs"}))
def test_a_room_s_lines_are_written_to_the_log(room: str) -> None:
    assert all(name.startswith(f"{logs.ROOT}.") for name in loggers_of(room))


@pytest.mark.parametrize(("library", "rooms"), ONLY_USERS.items())
def test_a_library_is_used_only_in_the_rooms_that_know_it(library: str, rooms: set[str]) -> None:
    users = {room for room in MAY_IMPORT if library in imports_of(room)}
    assert users <= rooms


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_says_in_its_first_sentence_what_it_knows(room: str) -> None:
    first = files_of(room)[0] if len(files_of(room)) == 1 else ROOT / room / "__init__.py"
    assert ast.get_docstring(ast.parse(first.read_text(encoding="utf-8")))
