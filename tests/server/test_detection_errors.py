"""Every way in which a file cannot become a volume, through HTTP: a status, a stable code, a sentence, and a hint."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openscans import errors
from openscans.server.error_responses import status_of
from tests import small_networks
from tests.bad_files import EXPECTED, pipe, single_slice, structured_report
from tests.live_server import LiveServer, live_server

FIELDS = {"success", "error", "detail", "code", "hint"}

OVER_HTTP = EXPECTED | {pipe: errors.ForbiddenPath}
"""What is no file is refused before anybody looks whether it can be read."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with networks that were never trained; the files of these tests never get as far as them."""
    results = tmp_path_factory.mktemp("results")
    for spec in (small_networks.VERTEBRAE, small_networks.CT, small_networks.FAST, small_networks.MR):
        small_networks.write(results, spec)
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}) as live:
        for task in ("total_body", "vertebrae", "vertebrae_mr"):
            response = live.post(f"/api/models/import/{task}", {"file_path": str(results)})
            assert response.status_code == 200, response.text
        yield live


@pytest.mark.parametrize(("make", "expected"), OVER_HTTP.items(), ids=[make.__name__ for make in OVER_HTTP])
def test_a_file_that_is_no_volume_is_refused_with_its_code(
    make: Callable[[Path], Path], expected: type[errors.OpenScansError], server: LiveServer, tmp_path: Path
) -> None:
    path = make(tmp_path)
    response = server.detect(path)
    answer = response.json()
    assert (response.status_code, answer["code"]) == (status_of(expected), expected.code)
    assert set(answer) == FIELDS
    assert answer["success"] is False
    assert answer["error"] == answer["detail"]
    assert answer["error"].endswith(".")
    assert answer["hint"].endswith(".")
    assert str(tmp_path) not in response.text


def test_no_sentence_quotes_the_patient(server: LiveServer, tmp_path: Path) -> None:
    for make in (single_slice, structured_report):
        folder = tmp_path / make.__name__
        folder.mkdir()
        assert "PHANTOM" not in server.detect(make(folder)).text


def test_a_stream_tells_the_same_error_as_its_one_last_event(server: LiveServer, tmp_path: Path) -> None:
    with server.detection_events(single_slice(tmp_path)) as stream:
        events = [*stream]
    assert [event["status"] for event in events].count("error") == 1
    assert events[-1]["status"] == "error"
    assert events[-1]["code"] == "too_few_slices"
    assert events[-1]["hint"]
