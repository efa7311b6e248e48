"""What speaks for each level in each bone: known beforehand in drawn label maps, and true of the phantom's spines."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans.segmentation import bodies, evidence, grids, vertebrae
from openscans.segmentation.blending import RunnersUp
from openscans.segmentation.sequence import VertebraInstance
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import Voxel
from openscans.volumes import Volume
from phantom import spine
from tests.segmentation.test_bodies import SHAPES, all_measured, label_map

SPACING_MM = np.diag([2.0, 2.0, 3.0, 1.0])

NAMES = {1: "S1", 2: "L5", 3: "L4", 4: "L3"}
SACRUM = 9

SHAPE_ZYX = (30, 24, 24)

Block = tuple[slice, slice, slice]


def block(z: slice, y: slice = slice(4, 20), x: slice = slice(4, 20)) -> Block:
    return z, y, x


def drawn(blocks: dict[int, Block]) -> LabelMap:
    """Blocks of labels whose probability is 0.6, beside 0.3 for background and nothing else."""
    labels = np.zeros(SHAPE_ZYX, np.uint8)
    for label, part in blocks.items():
        labels[part] = label
    count = np.count_nonzero(labels)
    ranked = RunnersUp(np.zeros((2, count), np.uint8), np.repeat(np.float16([[0.3], [0.0]]), count, axis=1))
    grid = grids.model_grid(
        np.diag([-1.0, -1.0, 1.0, 1.0]) @ SPACING_MM, grids.whole_box(Voxel(*SHAPE_ZYX[::-1])), (2.0, 2.0, 3.0)
    )
    probabilities = np.where(labels, np.float16(0.6), np.float16(0))
    return LabelMap(labels, probabilities, grid, NAMES, ranked, SACRUM)


def called(found: LabelMap, part: Block, second: int, probability: float, *, rank: int = 0) -> LabelMap:
    """``found`` with what its voxels in ``part`` would be called else."""
    assert found.runners_up is not None
    inside = np.zeros(found.labels.shape, np.bool_)
    inside[part] = True
    columns = inside[found.labels != 0]
    labels, probabilities = found.runners_up.labels.copy(), found.runners_up.probabilities.copy()
    labels[rank, columns], probabilities[rank, columns] = second, probability
    return replace(found, runners_up=RunnersUp(labels, probabilities))


def instances(found: LabelMap) -> dict[str, VertebraInstance]:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ SPACING_MM
    measured = vertebrae.measure_all(found, Volume(np.zeros(found.labels.shape, np.int16), affine))
    told = evidence.instances_of([*measured.vertebrae, *measured.repeated], measured, found, affine)
    return {one.label: one for one in told}


L5, L4 = block(slice(4, 11)), block(slice(14, 22))


def test_background_is_no_level() -> None:
    assert instances(drawn({2: L5}))["L5"].shares == {"L5": 1.0}


def test_what_the_core_would_be_called_else_has_its_share() -> None:
    found = called(drawn({2: L5, 3: L4}), L4, 2, 0.2)
    told = instances(called(found, L4, SACRUM, 0.1, rank=1))
    assert told["L4"].shares == pytest.approx({"L4": 0.75, "L5": 0.25}, abs=1e-3)
    assert told["L5"].shares == {"L5": 1.0}


def test_the_mean_is_of_probabilities() -> None:
    """A core's upper half is half another level: that has a quarter of it, however sure the other half is."""
    found = drawn({3: L4})
    whole = replace(found, probabilities=np.where(found.labels, np.float16(1), np.float16(0)))
    whole.probabilities[18:] /= 2
    told = instances(called(whole, block(slice(18, 22)), 2, 0.5))
    assert told["L4"].shares == pytest.approx({"L4": 0.75, "L5": 0.25}, abs=1e-3)


def test_what_only_the_surface_would_be_called_else_does_not_count() -> None:
    found = drawn({3: L4})
    for part in (block(slice(14, 16)), block(slice(20, 22)), block(slice(14, 22), y=slice(4, 6))):
        found = called(found, part, 2, 0.4)
    assert instances(found)["L4"].shares == {"L4": 1.0}


def test_of_a_thin_bone_all_of_it_counts() -> None:
    found = called(drawn({3: block(slice(14, 16))}), block(slice(14, 15)), 2, 0.6)
    assert instances(found)["L4"].shares == pytest.approx({"L4": 2 / 3, "L5": 1 / 3}, abs=1e-3)


def test_of_a_network_that_was_not_asked_its_labels_alone_count() -> None:
    assert instances(replace(drawn({3: L4}), runners_up=None))["L4"].shares == {"L4": 1.0}


ON_TOP = block(slice(11, 20))


@pytest.mark.parametrize(
    ("blocks", "label", "on_sacrum"),
    [
        ({2: ON_TOP, SACRUM: block(slice(2, 11))}, "L5", True),
        ({2: ON_TOP, SACRUM: block(slice(2, 11), y=slice(14, 24), x=slice(16, 20))}, "L5", False),
        ({2: ON_TOP, SACRUM: block(slice(2, 9))}, "L5", False),
        ({1: ON_TOP}, "S1", True),
        ({1: block(slice(0, 9))}, "S1", True),
        ({2: block(slice(0, 9)), SACRUM: block(slice(10, 20))}, "L5", False),
    ],
    ids=["on its end plate", "by a facet", "a disc between", "S1", "S1 at the edge of the image", "below the sacrum"],
)
def test_a_bone_on_the_sacrum_is_known(blocks: dict[int, Block], label: str, *, on_sacrum: bool) -> None:
    assert instances(drawn(blocks))[label].on_sacrum is on_sacrum


def test_a_bone_lies_where_its_body_does() -> None:
    found = drawn({2: L5})
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ SPACING_MM
    measured = vertebrae.measure_all(found, Volume(np.zeros(found.labels.shape, np.int16), affine))
    [vertebra] = measured.vertebrae
    assert vertebra.body is not None
    assert instances(found)["L5"].center_mm == vertebra.body.center_mm


@pytest.mark.parametrize("sample_mm", [1.5, 3.0])
@pytest.mark.parametrize("name", SHAPES)
def test_a_core_is_the_body_s(name: str, sample_mm: float) -> None:
    phantom = SHAPES[name](206)
    labels, affine = label_map(phantom, sample_mm)
    measured = all_measured(labels, affine)
    levels = {level.name: level for level in phantom.levels}
    for vertebra in measured.vertebrae:
        if vertebra.label in bodies.WITHOUT_BODY:
            continue
        level, core = levels[vertebra.label], evidence.core_of(measured.mask(vertebra))
        low = np.array(measured.components[vertebra].low_xyz)
        behind = offsets_mm(core, low, labels.shape, affine, level)[1]
        assert len(behind) >= evidence.LEAST_CORE
        assert np.mean(behind <= level.half_depth) >= 0.85


def offsets_mm(
    core: NDArray[np.bool_],
    low_xyz: NDArray[np.intp],
    shape_zyx: tuple[int, ...],
    affine: NDArray[np.float64],
    level: spine.Level,
) -> NDArray[np.float64]:
    """Of each sample of ``core`` to the left, to the back and up from the body's centre; its box is in RAS."""
    turned = np.argwhere(core)[:, ::-1] + low_xyz
    last = np.array(shape_zyx[::-1]) - 1
    index = np.stack([last[0] - turned[:, 0], last[1] - turned[:, 1], turned[:, 2]])
    places = affine[:3, :3] @ index + affine[:3, 3:]
    offsets: NDArray[np.float64] = level.axes @ (places - level.center_mm[:, None])
    return offsets
