"""The same image and the same weights give the same vertebrae here as in TotalSegmentator's own Python API."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from benchmarks import parity
from phantom import drawing, grid, layout, specs, spine
from phantom.demo import WEIGHTS
from phantom.files import write_nifti
from tests import small_networks

LEVELS = ("T11", "T12", "L1", "L2", "L3")


@dataclass(frozen=True)
class Case:
    """A CT on disk, weights, and the label map (z, y, x) that TotalSegmentator makes of them."""

    image: Path
    results: Path
    fast: bool
    theirs: NDArray[np.uint8]

    def parity(self, precision: str, *, exact: bool = False) -> parity.Parity:
        ours, measured = parity.ours(self.image, self.results, fast=self.fast, precision=precision, exact=exact)
        # The small networks also see pieces of levels that are not there; which piece is the largest is chance.
        return parity.parity(ours, self.theirs, [vertebra for vertebra in measured if vertebra.label in LEVELS])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lower back, scanned obliquely, with voxels of no round size, stored as NIfTI in LPS."""
    phantom = spine.describe(21, LEVELS)
    shape, affine = grid.turned(phantom, (1.37, 1.37, 2.1), (6, -4, 5))
    voxels, _ = drawing.render(phantom, shape, affine, seed=21)
    path = tmp_path_factory.mktemp("parity") / "ct.nii.gz"
    write_nifti(path, voxels, affine)
    return path


@pytest.fixture(scope="module")
def run_theirs(image: Path) -> Callable[[Path, bool], Case]:
    def run(results: Path, fast: bool) -> Case:
        return Case(image, results, fast, parity.theirs(image, results, fast=fast))

    return run


def phantom_weights(results: Path, *datasets: int) -> Path:
    """The small trained networks in a folder of their own, as TotalSegmentator adds folders to it."""
    for dataset in datasets:
        folder = specs.SPECS[dataset].folder
        shutil.copytree(WEIGHTS / folder, results / folder)
    return results


@pytest.fixture(scope="module", params=[False, True], ids=["full", "fast"])
def trained(
    request: pytest.FixtureRequest, run_theirs: Callable[[Path, bool], Case], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    results = phantom_weights(tmp_path_factory.mktemp("trained"), 292, 297, 298)
    return run_theirs(results, request.param)


TILES = pytest.mark.parametrize("exact", [True, False], ids=["exact", "along the spine"])


@TILES
def test_trained_weights_give_the_same_label_map_in_float32(trained: Case, exact: bool) -> None:
    assert trained.parity("float32", exact=exact).agreement >= 0.9999


@TILES
def test_trained_weights_give_the_same_centres_and_bounds_in_float32(trained: Case, exact: bool) -> None:
    found = trained.parity("float32", exact=exact)
    assert set(found.dice) >= set(LEVELS)
    assert found.center_voxels <= 0.3
    assert found.bounds_voxels <= 1


def test_the_processor_s_own_precision_changes_no_label_by_much(trained: Case) -> None:
    dice = trained.parity("auto").dice
    assert set(dice) >= set(LEVELS)
    assert min(dice[level] for level in LEVELS) >= 0.995


def faint(voxels: NDArray[np.int16]) -> NDArray[np.float32]:
    """``voxels`` in HU as an MR of few grey values, most of them between whole numbers: 0 to 40."""
    return np.interp(voxels, (-1000, 2000), (0, 40)).astype(np.float32)


def mr_weights(results: Path) -> None:
    """A small network with random weights; those of a background as likely as any label would be ties everywhere."""
    state = layout.random_state_dict(small_networks.MR, 0)
    state["decoder.seg_layers.4.bias"][0] += 1.5
    small_networks.write_state(results, small_networks.MR, state)


def test_an_mr_of_fractions_gives_the_same_label_map(tmp_path: Path) -> None:
    phantom = spine.describe(21, LEVELS[2:4])
    shape, affine = grid.turned(phantom, (1.9, 1.9, 3.3), (6, -4, 5))
    voxels, _ = drawing.render(phantom, shape, affine, seed=21)
    write_nifti(tmp_path / "mr.nii.gz", faint(voxels[:, 22:92, 26:96]), affine)
    mr_weights(tmp_path)
    ours, _ = parity.ours_mr(tmp_path / "mr.nii.gz", tmp_path, precision="float32")
    theirs = parity.theirs(tmp_path / "mr.nii.gz", tmp_path, task="vertebrae_mr")
    assert len(np.unique(theirs)) > 5
    assert np.mean(ours == theirs) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True], ids=["292", "297"])
def test_random_full_size_weights_give_the_same_label_map(
    fast: bool, run_theirs: Callable[[Path, bool], Case], tmp_path: Path
) -> None:
    results = phantom_weights(tmp_path, 298)
    layout.write_random(results, 297 if fast else 292)
    found = run_theirs(results, fast).parity("float32")
    # Random logits are near ties everywhere, and nnU-Net sums in float16.
    assert found.agreement_everywhere >= 0.995
    assert found.agreement >= 0.98
