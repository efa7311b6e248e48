"""A localiser that finds no spine, over HTTP: the finer network finds it, if its weights are there; else that is said.

The phantom's small trained networks, of which the localiser was made to call everything background.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phantom import drawing, specs
from phantom.demo import WEIGHTS
from phantom.files import write_nifti
from phantom.layout import training_folder
from tests.live_server import LiveServer, live_server
from tests.recorded import images

BLINDNESS = 1e3
"""Added to the logit of the background: no other label wins anywhere."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained networks, each in a folder of its number, and the localiser blind."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("weights")
    for number in (292, 297, 298):
        spec = specs.SPECS[number]
        shutil.copytree(WEIGHTS / spec.folder, folder / str(number) / spec.folder)
    path = training_folder(folder / "298", specs.SPECS[298]) / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    last = max(name for name in checkpoint["network_weights"] if name.startswith("decoder.seg_layers."))
    assert last.endswith(".weight")
    checkpoint["network_weights"][last.replace("weight", "bias")][0] += BLINDNESS
    torch.save(checkpoint, path)
    return folder


@pytest.fixture
def server(weights: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """Without the network that would look again."""
    with live_server(tmp_path / "home", {"OPENSCANS_OFFLINE": "1"}) as running:
        for task, number in (("total_body", 298), ("vertebrae", 292)):
            bring(running, task, weights / str(number))
        yield running


def bring(server: LiveServer, task: str, folder: Path) -> None:
    answer = server.post(f"/api/models/import/{task}", {"file_path": str(folder)})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_nifti(tmp_path / "scan.nii.gz", *images.axial_scan())
    return tmp_path / "scan.nii.gz"


def told(answer: dict[str, Any]) -> dict[str, str]:
    """The messages of all warnings but that of a busy machine and of the small networks themselves, by their codes."""
    passed_over = {"slow_detection", "demonstration_weights"}
    messages = {warning["code"]: warning["message"] for warning in answer["warnings"]}
    return {code: message for code, message in messages.items() if code not in passed_over}


def codes(answer: dict[str, Any]) -> list[str]:
    return list(told(answer))


def test_the_finer_network_finds_what_the_localiser_does_not_as_soon_as_it_is_there(
    server: LiveServer, weights: Path, image: Path
) -> None:
    without = server.detect(image).json()
    assert (without["vertebrae"], codes(without)) == ([], ["second_look_missing", "no_vertebrae"])
    assert told(without)["second_look_missing"].endswith("Download it with POST /api/models/download/total_body.")
    bring(server, "total_body", weights / "297")
    with server.detection_events(image) as stream:
        events = list(stream)
    found = events[-1]["result"]
    assert not found["cached"]
    assert codes(found)[0] == "localised_again"
    by_label = {one["label"]: one for one in found["vertebrae"]}
    for label, true in drawing.truth(images.LUMBAR).items():
        assert list(by_label[label]["center_mm"].values()) == pytest.approx(true.center_mm, abs=2.0)
    assert [name[:10] for name in found["model"]["datasets"]] == ["Dataset292", "Dataset298", "Dataset297"]
    progress = [event["progress"] for event in events]
    assert all(before <= after for before, after in itertools.pairwise(progress))
    again = server.detect(image).json()
    assert again["cached"]
    assert [again[key] for key in ("vertebrae", "warnings", "model")] == [
        found[key] for key in ("vertebrae", "warnings", "model")
    ]


def test_fast_mode_finds_it_in_the_whole_image(server: LiveServer, weights: Path, image: Path) -> None:
    bring(server, "total_body", weights / "297")
    found = server.detect(image, fast_mode=True).json()
    assert codes(found)[0] == "localised_again"
    assert {one["label"] for one in found["vertebrae"]} >= set(drawing.truth(images.LUMBAR))
    assert [name[:10] for name in found["model"]["datasets"]] == ["Dataset297", "Dataset298"]


def test_other_weights_of_the_finer_network_are_asked_anew(server: LiveServer, weights: Path, image: Path) -> None:
    bring(server, "total_body", weights / "297")
    assert server.detect(image).json()["vertebrae"]
    assert server.detect(image).json()["cached"]
    torch = pytest.importorskip("torch")
    other = server.home.parent / "other"
    shutil.copytree(weights / "297", other)
    path = training_folder(other, specs.SPECS[297]) / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["network_weights"]["decoder.seg_layers.0.bias"] += 1
    torch.save(checkpoint, path)
    bring(server, "total_body", other)
    assert not server.detect(image).json()["cached"]
