"""A GPU that is wrong without a word leaves the detection to the CPU, as a caller of the service sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phantom.files import write_nifti
from tests.live_server import LiveServer
from tests.phantom_server import lumbar_scan, phantom_server

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with phantom_server(tmp_path_factory.mktemp("home"), program=("-m", "tests.posing_server")) as running:
        yield running


def detected(server: LiveServer, image: Path, **options: object) -> dict[str, Any]:
    answer = server.detect(image, fast_mode=True, use_cache=False, **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_what_the_cpu_finds_is_answered_with_a_warning(server: LiveServer, tmp_path: Path) -> None:
    image = tmp_path / "ct.nii"
    write_nifti(image, *lumbar_scan())
    on_the_gpu, on_the_cpu = detected(server, image), detected(server, image, device="cpu")
    assert [one["code"] for one in on_the_cpu["warnings"]] == ["demonstration_weights"]
    [warning] = [one for one in on_the_gpu["warnings"] if one not in on_the_cpu["warnings"]]
    assert warning["code"] == "device_fallback"
    assert "computes otherwise than the CPU" in warning["message"]
    assert on_the_gpu["device"] == "cpu"
    assert on_the_gpu["vertebrae"] == on_the_cpu["vertebrae"] != []
