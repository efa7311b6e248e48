"""Patches that follow the spine: as good as all of them on spines of every shape, and fewer where it is bent."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.detect import training_folder
from openscans import networks, volumes
from openscans.progress import ignore_progress
from openscans.segmentation import grids, labelling
from openscans.segmentation.plausibility import SMALLEST_VERTEBRA_ML
from openscans.segmentation.roi import SpineRoi
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import InferenceOptions
from openscans.volumes import Volume, look_at_intensities
from openscans.volumes.values import Voxels
from phantom import drawing, grid, spine
from phantom.demo import WEIGHTS
from tests.curved_spines import bent

STEP = 0.8
PATCH_MM = 192
"""The edge of the real 292's patch. The small networks, trained on less, take any size."""

Load = Callable[[int], networks.Network]

SHAPES = {
    "straight": {},
    "scoliotic": {"to_side_mm": 110.0},
    "kyphotic": {"to_back_mm": 70.0},
}
PARTS = {"whole": spine.LEVELS, "lumbar": spine.LEVELS[14:]}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The small trained networks, with patches as large as the real ones'; the localiser as it was trained."""
    folder = tmp_path_factory.mktemp("weights")
    shutil.copytree(WEIGHTS, folder, dirs_exist_ok=True)
    for dataset, spacing_mm in ((292, 1.5), (297, 3.0)):
        plans = training_folder(folder, dataset) / "plans.json"
        content = json.loads(plans.read_text())
        content["configurations"]["3d_fullres"]["patch_size"] = [int(PATCH_MM / spacing_mm)] * 3
        plans.write_text(json.dumps(content))
    options = InferenceOptions(None, "float32", tmp_path_factory.mktemp("compiled"))
    return lambda dataset: networks.load_folder(training_folder(folder, dataset), device="cpu", options=options)


def scan(part: str, shape: str) -> Volume:
    bend = dict(SHAPES[shape])
    if part != "whole":
        bend = {side: 0.6 * mm for side, mm in bend.items()}
    body = bent(7, PARTS[part], **bend)
    shape_zyx, affine = grid.axial(body, (1.5, 1.5, 2.0))
    return Volume(drawing.render(body, shape_zyx, affine, seed=3)[0], affine)


def dice_beside_the_exact_grid(
    exact: LabelMap, volume: Volume, roi: SpineRoi, network: networks.Network
) -> dict[str, float]:
    along = labelling.segment(volume, roi.box, network, step=STEP, report=ignore_progress, roi=roi)
    smallest = SMALLEST_VERTEBRA_ML / grids.sample_volume_ml(exact.grid, volume.affine_lps)
    dice = {}
    for number, name in exact.names.items():
        one, other = exact.labels == number, along.labels == number
        if max(one.sum(), other.sum()) >= smallest:
            dice[name] = 2 * int((one & other).sum()) / int(one.sum() + other.sum())
    return dice


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dataset", "part"),
    [(297, "whole"), (297, "lumbar"), pytest.param(292, "whole", marks=pytest.mark.slow)],
)
def test_every_label_is_that_of_the_exact_grid(load: Load, dataset: int, part: str, shape: str) -> None:
    volume = scan(part, shape)
    roi = labelling.localise(volume, load(298), step=STEP, report=ignore_progress)
    assert roi is not None
    network = load(dataset)
    exact = labelling.segment(volume, roi.box, network, step=STEP, report=ignore_progress)
    dice = dice_beside_the_exact_grid(exact, volume, roi, network)
    assert set(PARTS[part]) <= set(dice)
    assert min(dice.values()) >= 0.99
    # Laid elsewhere, patches see other surroundings; that is why this is not the default.
    assert min(dice_beside_the_exact_grid(exact, volume, replace(roi, follow_spine=True), network).values()) >= 0.97


def patches(volume: Volume, network: networks.Network, roi: SpineRoi, *, follow: bool) -> int:
    totals: list[int] = []
    labelling.segment(
        volume,
        roi.box,
        network,
        step=STEP,
        report=lambda _done, total: totals.append(total),
        roi=replace(roi, follow_spine=True) if follow else None,
    )
    return totals[-1]


def test_a_bent_spine_takes_fewer_patches_than_its_box(load: Load) -> None:
    volume, network = scan("whole", "scoliotic"), load(297)
    roi = labelling.localise(volume, load(298), step=STEP, report=ignore_progress)
    assert roi is not None
    assert patches(volume, network, roi, follow=True) <= 0.8 * patches(volume, network, roi, follow=False)


@pytest.fixture(scope="module")
def air_aside() -> tuple[spine.Phantom, Volume]:
    """A lumbar spine with a patch of the localiser and more of air on either side, as in a scan of the arms' width."""
    body = spine.describe(7, PARTS["lumbar"])
    shape_zyx, affine = grid.axial(body, (2.0, 2.0, 2.0))
    aside = 220
    affine[0, 3] -= 2.0 * aside
    return body, Volume(drawing.render(body, (*shape_zyx[:2], shape_zyx[2] + 2 * aside), affine)[0], affine)


def localised(volume: Volume, network: networks.Network, air_below: float | None) -> tuple[SpineRoi, int]:
    """The spine of ``volume``, and how many patches that took."""
    totals: list[int] = []
    roi = labelling.localise(
        volume, network, step=STEP, report=lambda _done, total: totals.append(total), air_below=air_below
    )
    assert roi is not None
    return roi, totals[-1]


def test_patches_of_air_are_not_computed(load: Load, air_aside: tuple[spine.Phantom, Volume]) -> None:
    body, volume = air_aside
    network = load(298)
    found = {air_below: localised(volume, network, air_below) for air_below in (volumes.AIR_HU, None)}
    for roi, _ in found.values():
        for true in drawing.truth(body).values():
            x, y, z = (np.linalg.inv(volume.affine_lps) @ (*true.center_mm, 1.0))[:3]
            assert roi.box.min.x < x < roi.box.max.x
            assert roi.box.min.y < y < roi.box.max.y
            assert roi.box.min.z < z < roi.box.max.z
    assert found[volumes.AIR_HU][1] < found[None][1]


def shifted(hu: Voxels) -> Voxels:
    return (hu + 1024).astype(np.int16)


def windowed(hu: Voxels) -> Voxels:
    return np.clip(hu, -160, 240)


def windowed_to_8_bits(hu: Voxels) -> Voxels:
    return ((np.clip(hu, -160, 240) + 160) / 400 * 255).astype(np.int16)


@dataclass
class Onlooker(networks.Network):
    """Finds nothing, and counts the patches that it was shown."""

    plan: networks.Plan
    device: str = "cpu"
    patch_s: float = 0.0
    seen: int = 0

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen += 1
        return np.zeros((self.plan.architecture.heads, *patch.shape), np.float32)


@pytest.mark.parametrize("spoil", [shifted, windowed, windowed_to_8_bits])
def test_an_image_without_hounsfield_units_takes_no_more_patches_for_the_air_around(
    load: Load, air_aside: tuple[spine.Phantom, Volume], spoil: Callable[[Voxels], Voxels]
) -> None:
    _, volume = air_aside
    seen = []
    for voxels in (volume.voxels, spoil(volume.voxels)):
        onlooker = Onlooker(load(298).plan)
        air_below = look_at_intensities(voxels, volume.told, is_mr=False).air_below
        labelling.localise(
            replace(volume, voxels=voxels), onlooker, step=STEP, report=ignore_progress, air_below=air_below
        )
        seen.append(onlooker.seen)
    assert 0 < seen[1] <= seen[0]
