"""How sure each level is, over HTTP: of a clean scan every level, and nothing else may be meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom import spine
from phantom.files import write_nifti
from tests.live_server import LiveServer
from tests.phantom_server import lumbar_scan, phantom_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with phantom_server(tmp_path_factory.mktemp("home")) as live:
        yield live


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "scan.nii.gz"
    write_nifti(path, *lumbar_scan(seed=3, spacing_mm=1.5))
    return path


@pytest.mark.parametrize("fast_mode", [False, True])
def test_every_level_of_a_clean_spine_is_sure(server: LiveServer, image: Path, *, fast_mode: bool) -> None:
    answer = server.detect(image, fast_mode=fast_mode).json()
    assert [vertebra["label"] for vertebra in answer["vertebrae"]] == [*spine.LEVELS[-4:]]
    assert min(vertebra["level_confidence"] for vertebra in answer["vertebrae"]) > 0.9
    assert [vertebra["alternatives"] for vertebra in answer["vertebrae"]] == [[]] * 4
    assert "sequence_differs" not in {warning["code"] for warning in answer["warnings"]}


def test_a_kept_answer_tells_them_too(server: LiveServer, image: Path) -> None:
    first = server.detect(image, fast_mode=True).json()
    kept = server.detect(image, fast_mode=True).json()
    assert kept["cached"]
    assert kept["vertebrae"] == first["vertebrae"]
