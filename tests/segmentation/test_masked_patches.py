"""Patches over a part of an image: none where nothing matters, the same answer where something does."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks
from openscans.networks import Network
from openscans.networks.plans import Plan
from openscans.progress import ignore_progress
from openscans.segmentation import sliding_window
from tests import small_networks

Mask = NDArray[np.bool_]
PATCH = (16, 64, 64)
SHAPE_ZYX = (60, 150, 200)


@dataclass
class Ramps(Network):
    """A network whose logits depend on the voxel and on where in the patch it lies, as a real one's do."""

    plan: Plan
    device: str = "cpu"
    patch_s: float = 0.1

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        _, y, x = np.indices(patch.shape, np.float32)
        slopes = np.linspace(-1, 1, self.plan.architecture.heads, dtype=np.float32)
        return np.stack([slope * patch + slope**2 * (np.cos(y / 4) + x / 64) for slope in slopes])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Ramps:
    folder = small_networks.write(tmp_path_factory.mktemp("plan"), small_networks.MR)
    return Ramps(networks.read_plan(folder))


def slanting() -> Mask:
    """A rod of 12 × 20 voxels that crosses the image from one edge to the other."""
    wanted = np.zeros(SHAPE_ZYX, np.bool_)
    for z in range(SHAPE_ZYX[0]):
        wanted[z, 60:72, 3 * z : 3 * z + 20] = True
    return wanted


def image() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(SHAPE_ZYX, np.float32)


def windows(rows: list[sliding_window.PatchRow]) -> list[tuple[slice, ...]]:
    return [(slice(row.top, row.top + 16), slice(y, y + 64), slice(x, x + 64)) for row in rows for y, x in row.corners]


@pytest.mark.parametrize("shape_zyx", [(16, 64, 64), (41, 100, 65), (100, 64, 200)])
def test_where_all_is_wanted_the_patches_are_nnunets(shape_zyx: tuple[int, int, int]) -> None:
    everything = np.ones(shape_zyx, np.bool_)
    grid = [sliding_window.patch_starts(size, patch, 0.8) for size, patch in zip(shape_zyx, PATCH, strict=True)]
    for follow in (False, True):
        rows = sliding_window.patch_layout(everything, PATCH, step=0.8, follow_spine=follow)
        assert [row.top for row in rows] == grid[0]
        assert {row.corners for row in rows} == {tuple((y, x) for y in grid[1] for x in grid[2])}


def test_what_is_wanted_gets_the_labels_and_probabilities_of_the_whole_grid(network: Ramps) -> None:
    wanted = slanting()
    whole = sliding_window.predict(image(), network, sliding_window.Coverage(0.8), report=ignore_progress)
    part = sliding_window.predict(image(), network, sliding_window.Coverage(0.8, wanted), report=ignore_progress)
    np.testing.assert_array_equal(part.labels[wanted], whole.labels[wanted])
    np.testing.assert_array_equal(part.probabilities[wanted], whole.probabilities[wanted])


def test_patches_that_hold_nothing_wanted_are_not_computed(network: Ramps) -> None:
    heard: list[tuple[int, int]] = []
    sliding_window.predict(
        image(), network, sliding_window.Coverage(0.8, slanting()), report=lambda *told: heard.append(told)
    )
    total = len(windows(sliding_window.patch_layout(slanting(), PATCH, step=0.8, follow_spine=False)))
    assert heard == [(done, total) for done in range(total + 1)]
    assert (
        total
        < len(windows(sliding_window.patch_layout(np.ones(SHAPE_ZYX, np.bool_), PATCH, step=0.8, follow_spine=False)))
        / 2
    )


def test_where_no_patch_lies_the_label_is_background(network: Ramps) -> None:
    wanted = slanting()
    found = sliding_window.predict(
        image(), network, sliding_window.Coverage(0.8, wanted, follow_spine=True), report=ignore_progress
    )
    outside = np.ones(SHAPE_ZYX, np.bool_)
    for window in windows(sliding_window.patch_layout(wanted, PATCH, step=0.8, follow_spine=True)):
        outside[window] = False
    assert outside.any()
    assert not found.labels[outside].any()
    assert not found.probabilities[outside].any()


def test_a_row_of_patches_that_falls_into_a_gap_is_left_out(network: Ramps) -> None:
    wanted = np.zeros((98, 64, 64), np.bool_)
    wanted[27:58] = wanted[76:88] = True
    rows = sliding_window.patch_layout(wanted, PATCH, step=0.5, follow_spine=True)
    assert [row.top for row in rows] == [25, 32, 39, 46, 53, 67, 74]
    values = np.random.default_rng(0).standard_normal(wanted.shape, np.float32)
    found = sliding_window.predict(
        values, network, sliding_window.Coverage(0.5, wanted, follow_spine=True), report=ignore_progress
    )
    assert found.labels[wanted].mean() > 1


def test_patches_that_follow_are_fewer_and_cover_all_that_is_wanted() -> None:
    wanted = slanting()
    along = windows(sliding_window.patch_layout(wanted, PATCH, step=0.8, follow_spine=True))
    assert len(along) < len(windows(sliding_window.patch_layout(wanted, PATCH, step=0.8, follow_spine=False)))
    for window in along:
        wanted[window] = False
    assert not wanted.any()


def test_nothing_wanted_is_background_without_a_patch(network: Ramps) -> None:
    nothing = np.zeros(SHAPE_ZYX, np.bool_)
    found = sliding_window.predict(image(), network, sliding_window.Coverage(0.8, nothing), report=pytest.fail)
    assert not found.labels.any()


def test_an_island_below_a_gap_is_labelled(network: Ramps) -> None:
    wanted = np.zeros(SHAPE_ZYX, np.bool_)
    wanted[2:5, 10:20, 10:20] = wanted[55:58, 100:110, 150:160] = True
    whole = sliding_window.predict(image(), network, sliding_window.Coverage(0.8), report=ignore_progress)
    part = sliding_window.predict(image(), network, sliding_window.Coverage(0.8, wanted), report=ignore_progress)
    np.testing.assert_array_equal(part.labels[wanted], whole.labels[wanted])
