"""The CT and the weights that timings are taken on: a phantom of any size, full-size random networks."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.weigh import ROOT
from openscans.types import Point, Voxel
from phantom import drawing, layout, specs, spine
from phantom.files import write_nifti

WEIGHTS = ROOT / "phantom" / "weights"

BELOW_MM = 5.0
"""Air below the body, where the image is shorter than the whole spine and begins at its lower end."""

BACKGROUND = {292: 5.4, 297: 17.2}
"""What random networks add to the background, to name about a tenth of the voxels: a spine fills so much of its box."""


@dataclass(frozen=True)
class Field:
    """What a scan covers."""

    size: Voxel
    spacing_mm: Point


def write_ct(path: Path, field: Field) -> None:
    """`phantom_ct` as NIfTI."""
    write_nifti(path, *phantom_ct(field))


def phantom_ct(field: Field) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Voxels (z, y, x) and LPS affine: the whole spine where the image is long enough, else its lower part."""
    phantom = spine.describe(5)
    center = np.mean([level.center_mm for level in phantom.levels], axis=0)
    spacing = np.array([field.spacing_mm.x, field.spacing_mm.y, field.spacing_mm.z])
    counts = np.array([field.size.x, field.size.y, field.size.z])
    low = center - spacing * (counts - 1) / 2
    low[2] = min(low[2], phantom.bottom_mm - BELOW_MM)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    voxels, _ = drawing.render(phantom, (field.size.z, field.size.y, field.size.x), affine, seed=5)
    return voxels, affine


def write_weights(results: Path, *, fast: bool) -> None:
    """The small trained localiser, and the full-size network that labels, with random weights."""
    folder = specs.SPECS[298].folder
    shutil.copytree(WEIGHTS / folder, results / folder, dirs_exist_ok=True)
    dataset = 297 if fast else 292
    layout.write_random(results, dataset, background=BACKGROUND[dataset])
