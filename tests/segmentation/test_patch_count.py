"""How many patches a detection will compute, told from its extent: what the sliding window does, and a fair guess."""

import numpy as np
import pytest

from openscans import networks
from openscans.errors import InconsistentGeometry
from openscans.networks.plans import Plan
from openscans.segmentation import grids, patch_count, sliding_window
from openscans.types import Voxel
from openscans.volumes import Extent
from phantom import specs
from tests.test_inference import model

STEP = 0.8
MM = np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """292's: patches of 128³ samples, 192 mm."""
    return networks.read_plan(model(tmp_path_factory.mktemp("plans"), specs.SPECS[292]).folder)


@pytest.fixture(scope="module")
def mr_plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """756's: patches of 80 × 160 × 160 samples, which overlap by half."""
    return networks.read_plan(model(tmp_path_factory.mktemp("plans"), specs.SPECS[756]).folder)


@pytest.mark.parametrize("shape_zyx", [(60, 100, 100), (300, 400, 350), (900, 512, 512)])
def test_over_a_whole_image_it_is_the_number_of_the_sliding_window(plan: Plan, shape_zyx: tuple[int, int, int]) -> None:
    samples = [max(round(size / 1.5), patch) for size, patch in zip(shape_zyx, plan.patch_zyx, strict=True)]
    rows = sliding_window.patch_layout(np.ones(samples, np.bool_), plan.patch_zyx, step=STEP, follow_spine=False)
    expected = sum(len(row.corners) for row in rows)
    assert patch_count.count_patches(plan, Extent(shape_zyx, MM), step=STEP) == expected


@pytest.mark.parametrize(("length_mm", "patches"), [(100, 1), (300, 2), (600, 4), (1800, 5)])
def test_around_the_spine_there_is_a_row_of_patches_as_long_as_it(plan: Plan, length_mm: int, patches: int) -> None:
    assert patch_count.count_spine_patches(plan, Extent((length_mm, 500, 500), MM), step=STEP) == patches


def test_which_axis_runs_along_the_spine_is_told_by_the_affine(plan: Plan) -> None:
    # Sagittal slices: columns to the back, rows to the feet, slices to the left.
    sagittal = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
    axial, turned = Extent((600, 500, 400), MM), Extent((400, 600, 500), sagittal)
    counts = {patch_count.count_spine_patches(plan, extent, step=STEP) for extent in (axial, turned)}
    assert counts == {4}


def test_a_whole_body_is_not_too_many_patches(plan: Plan, mr_plan: Plan) -> None:
    patch_count.check_patches(mr_plan, grids.whole_box(Voxel(500, 500, 2000)), MM, step=0.5)
    patch_count.check_patches(plan, grids.whole_box(Voxel(900, 900, 2300)), MM, step=STEP)


@pytest.mark.parametrize("size", [Voxel(1000, 1000, 2900), Voxel(1000, 2900, 1000)])
def test_more_patches_than_a_body_takes_are_refused(mr_plan: Plan, size: Voxel) -> None:
    with pytest.raises(InconsistentGeometry, match=r"would compute \d{4} pieces of it") as refused:
        patch_count.check_patches(mr_plan, grids.whole_box(size), MM, step=0.5)
    assert "smaller part" in refused.value.hint


def test_all_that_an_image_can_be_is_so_few_of_a_localiser_s_patches(tmp_path_factory: pytest.TempPathFactory) -> None:
    localiser = networks.read_plan(model(tmp_path_factory.mktemp("plans"), specs.SPECS[298]).folder)
    whole = grids.whole_box(Voxel(1000, 1000, 3000))
    patch_count.check_patches(localiser, whole, MM, step=STEP)
    assert patch_count.count_patches(localiser, Extent((3000, 1000, 1000), MM), step=STEP) < 150
