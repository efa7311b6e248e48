"""Where the body of a vertebra is: beside phantoms that know theirs, whole, bent, cut off, and of an arch alone."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans.segmentation import grids, vertebrae
from openscans.types import Bounds, Vertebra, Voxel
from openscans.volumes import Volume
from phantom import drawing, grid, spine
from tests.curved_spines import bent

MEAN_MM, WORST_MM = 2.0, {"C": 3.0, "T": 4.0, "L": 4.0, "S": 4.0}

SHAPES: dict[str, Callable[[int], spine.Phantom]] = {
    "straight": spine.describe,
    "scoliotic": lambda seed: bent(seed, spine.LEVELS, to_side_mm=45.0),
    "kyphotic": lambda seed: bent(seed, spine.LEVELS, to_back_mm=40.0),
}

NAMES = {number: name for name, number in spine.LABELS.items() if name in spine.LEVELS}


def label_map(phantom: spine.Phantom, sample_mm: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The true labels (z, y, x) of a scan with such samples, and where they lie (LPS)."""
    shape, affine = grid.axial(phantom, (sample_mm, sample_mm, sample_mm))
    return drawing.render(phantom, shape, affine, noise_hu=0.0)[1], affine


def measured(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> list[Vertebra]:
    return all_measured(labels, affine).vertebrae


def all_measured(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> vertebrae.Measured:
    whole = Voxel(*labels.shape[::-1])
    box = Bounds(Voxel(0, 0, 0), Voxel(whole.x - 1, whole.y - 1, whole.z - 1))
    model = grids.model_grid(affine, box, grids.spacing_mm(affine))
    turned = labels[:, ::-1, ::-1].copy()  # LPS → RAS
    found = vertebrae.LabelMap(turned, np.ones(turned.shape, np.float16), model, NAMES)
    return vertebrae.measure_all(found, Volume(labels.astype(np.int16), affine))


def off_mm(found: list[Vertebra], phantom: spine.Phantom) -> Iterator[tuple[str, float]]:
    """How far each body that was found is from the phantom's."""
    true = {level.name: level.center_mm for level in phantom.levels}
    for vertebra in found:
        if vertebra.body is not None:
            place = vertebra.body.center_mm
            yield vertebra.label, float(np.linalg.norm(true[vertebra.label] - (place.x, place.y, place.z)))


@pytest.mark.parametrize("sample_mm", [1.5, 3.0])
@pytest.mark.parametrize("name", SHAPES)
def test_a_body_is_found_where_the_phantom_has_it(name: str, sample_mm: float) -> None:
    off: dict[str, list[float]] = defaultdict(list)
    for seed in (201, 202):
        phantom = SHAPES[name](seed)
        found = measured(*label_map(phantom, sample_mm))
        assert [vertebra.label for vertebra in found if vertebra.body is None] == ["C1"]
        for label, distance_mm in off_mm(found, phantom):
            off[label[0]].append(distance_mm)
    for region, distances in off.items():
        assert np.mean(distances) <= MEAN_MM
        assert max(distances) <= WORST_MM[region]


@pytest.mark.parametrize("name", SHAPES)
def test_no_label_of_a_clean_spine_is_called_repeated(name: str) -> None:
    for seed in range(205, 209):
        labels, affine = label_map(SHAPES[name](seed), 3.0)
        assert all_measured(labels, affine).repeated == []


@pytest.mark.parametrize("part", ["upper", "lower"])
def test_a_body_that_the_picture_cuts_off_is_told_by_what_is_in_view(part: str) -> None:
    """Two thirds of L3 are in view; the mark stays on it."""
    phantom = spine.describe(203)
    labels, affine = label_map(phantom, 1.5)
    [l3] = [level for level in phantom.levels if level.name == "L3"]
    middle = (l3.center_mm[2] - affine[2, 3]) / affine[2, 2]
    cut = round(middle + (1 if part == "upper" else -1) * l3.height / 6 / 1.5)
    kept = labels[:cut] if part == "upper" else labels[cut:]
    moved = affine.copy()
    if part == "lower":
        moved[2, 3] += cut * affine[2, 2]
    [found] = [vertebra for vertebra in measured(kept.copy(), moved) if vertebra.label == "L3"]
    assert found.truncated
    assert found.body is not None
    assert dict(off_mm([found], phantom))["L3"] <= l3.height / 4


@pytest.mark.parametrize("sample_mm", [1.5, 3.0])
def test_of_an_arch_alone_no_body_is_told(sample_mm: float) -> None:
    phantom = spine.describe(204, spine.LEVELS[7:24])
    labels, affine = label_map(phantom, sample_mm)
    for level in phantom.levels:
        z, y, x = np.nonzero(labels == spine.LABELS[level.name])
        places = np.stack([x, y, z], axis=-1) @ affine[:3, :3].T + affine[:3, 3] - level.center_mm
        body = places @ level.axes[1] < level.half_depth
        labels[z[body], y[body], x[body]] = 0
    assert [vertebra.body for vertebra in measured(labels, affine) if vertebra.body is not None] == []
