"""Ends and neighbours with the real pipeline, whose libraries and compiled networks write files of their own."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phantom import drawing, grid, spine
from phantom.files import write_nifti
from tests.live_server import LiveServer, live_server
from tests.phantom_server import lumbar_scan, phantom_server
from tests.server.test_process import are_gone, children_of


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "scan.nii.gz"
    write_nifti(path, *lumbar_scan())
    return path


def files_below(folder: Path) -> set[Path]:
    """Without logs, and the locks beside them."""
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".log", ".lock"}}


@pytest.mark.parametrize("stage", ["reading", "segmenting"])
def test_ended_during_a_detection_it_tells_so_is_gone_soon_and_leaves_nothing_begun(
    tmp_path: Path, image: Path, stage: str
) -> None:
    (tmp_path / "tmp").mkdir()
    with phantom_server(tmp_path / "home", {"TMPDIR": str(tmp_path / "tmp")}) as server:
        whole = files_below(tmp_path / "home")
        with server.detection_events(image) as stream:
            next(event for event in stream if event["status"] == stage)
            processes = children_of(server.process.pid)
            began_s = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert [event["status"] for event in stream][-1] == "cancelled"
        server.process.wait(10)
        assert time.monotonic() - began_s < 3
        assert are_gone(processes, within_s=0.5)
    assert files_below(tmp_path / "tmp") == set()
    # Networks that were compiled by then are kept, whole, and what was measured: the next start reads them.
    assert {path.suffix for path in files_below(tmp_path / "home") - whole} <= {".blob", ".abilities", ".pace"}


def centres(server: LiveServer, image: Path) -> list[dict[str, float]]:
    answer = server.detect(image, fast_mode=True, use_cache=False)
    assert answer.status_code == 200, answer.text
    return [vertebra["center"] for vertebra in answer.json()["vertebrae"]]


def test_two_servers_on_one_home_that_compile_and_keep_the_same_at_once_find_the_same(
    tmp_path: Path, image: Path
) -> None:
    home = tmp_path / "home"
    with phantom_server(home) as first, live_server(home, {"OPENSCANS_OFFLINE": "1"}) as second:
        with ThreadPoolExecutor(2) as callers:
            one, other = callers.map(centres, (first, second), (image, image))
        assert one == other != []
        first.kill()
        assert centres(second, image) == one
        with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as third:
            assert centres(third, image) == one


@pytest.mark.parametrize(("shown", "codes"), [(slice(-4, None), []), (slice(-5, -2), ["numbering_uncertain"])])
def test_doubts_about_the_levels_are_told_with_them(tmp_path: Path, shown: slice, codes: list[str]) -> None:
    """Of four levels with S1, and of three of which none is an anchor."""
    phantom = spine.describe(3, spine.LEVELS[shown])
    shape, affine = grid.axial(phantom, (3.0, 3.0, 3.0))
    write_nifti(tmp_path / "scan.nii.gz", drawing.render(phantom, shape, affine)[0], affine)
    with phantom_server(tmp_path / "home") as server:
        answer = server.detect(tmp_path / "scan.nii.gz", fast_mode=True).json()
    assert [vertebra["label"] for vertebra in answer["vertebrae"]] == list(spine.LEVELS[shown])
    assert [warning["code"] for warning in answer["warnings"]] == ["demonstration_weights", *codes]
