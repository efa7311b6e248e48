"""ANSWER.md against what the service says that it sends: each key, warning and error stands there, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest

from openscans import errors
from openscans.server.error_responses import status_of
from openscans.types import WarningCode
from tests.live_server import ROOT, live_server

PAGE = ROOT / "ANSWER.md"
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)`(.*)\|$", re.MULTILINE)
README_CODES = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


def sections() -> dict[str, str]:
    """The text under each heading of the page, by the heading."""
    parts = HEADING.split(PAGE.read_text(encoding="utf-8"))[1:]
    assert len(set(parts[::2])) == len(parts[::2])
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each row whose first cell is a name, by that name."""
    found = [(row[1], [cell.strip() for cell in row[2].strip(" |").split(" | ")]) for row in ROW.finditer(text)]
    assert len(dict(found)) == len(found)
    return dict(found)


def described(section: str) -> str | None:
    """The name in `/openapi.json` of what a heading is about."""
    named = re.search(r"\(`(\w+)`\)$", section)
    return named[1] if named else None


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with live_server(tmp_path_factory.mktemp("home")) as server:
        return dict(server.get("/openapi.json").json())


def answers(document: dict[str, Any]) -> dict[str, set[str]]:
    """The keys of every object that is sent, by the object's name."""
    asked = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for operations in document["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    }
    shapes = document["components"]["schemas"]
    return {
        name: set(shape["properties"]) for name, shape in shapes.items() if "properties" in shape and name not in asked
    }


def test_every_key_of_every_answer_stands_on_the_page_and_no_other(document: dict[str, Any]) -> None:
    told = {described(section): set(rows(text)) for section, text in sections().items() if described(section)}
    assert {name: keys for name, keys in told.items() if name != "WarningCode"} == answers(document)


def test_every_warning_stands_on_the_page_and_no_other() -> None:
    (text,) = (text for section, text in sections().items() if described(section) == "WarningCode")
    assert set(rows(text)) == {code.value for code in WarningCode}


def test_every_error_stands_on_the_page_with_its_status_and_no_other() -> None:
    told = rows(sections()["Which errors there are"])
    kinds = list(errors.kinds_of(errors.OpenScansError))
    assert {code: int(cells[0]) for code, cells in told.items()} == {kind.code: status_of(kind) for kind in kinds}


def test_a_row_says_what_is_meant_and_of_warnings_and_errors_what_to_do() -> None:
    wide = {"Which errors there are": 3, "Which warnings there are (`WarningCode`)": 2}
    for section, text in sections().items():
        for name, cells in rows(text).items():
            assert len(cells) == wide.get(section, 1), name
            assert all(cell.endswith((".", "`")) for cell in cells[-2:]), name


def test_the_readme_leads_to_the_page_and_lists_the_same_warnings() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"]({PAGE.name})" in readme
    table = readme.partition("| warning | meaning |")[2].partition("\n\n")[0]
    listed = [code for row in README_CODES.findall(table) for code in re.findall(r"\w+", row)]
    assert sorted(listed) == sorted(code.value for code in WarningCode)


def test_links_within_the_page_lead_somewhere() -> None:
    page = PAGE.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(page)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
    assert all((ROOT / Path(name)).is_file() for name in re.findall(r"\]\((\w+\.md)\)", page))
