"""Networks in TotalSegmentator's layout that are small enough to write, load and run in a second."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from phantom import layout, specs

if TYPE_CHECKING:
    import torch

CT = specs.small(specs.SPECS[298], base_features=4, max_features=16, patch_zyx=(32, 16, 32))
"""Five stages that halve all axes, 118 classes."""

FAST = specs.small(specs.SPECS[297], base_features=4, max_features=16, patch_zyx=(32, 16, 32))
"""The same at 3 mm."""

VERTEBRAE = specs.small(specs.SPECS[292], base_features=4, max_features=16, patch_zyx=(32, 64, 32))
"""Six stages, 27 classes."""

LAST_STAGE_FLAT = specs.small(specs.SPECS[756], base_features=4, max_features=16, patch_zyx=(32, 64, 64))
"""756 as its siblings are: six stages, of which the last keeps one axis."""

MR = replace(
    LAST_STAGE_FLAT,
    patch_zyx=(16, 64, 64),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3), *LAST_STAGE_FLAT.kernels[1:]),
)
"""Six stages that halve the axes unevenly, with a flat first kernel, as nnU-Net plans for thick slices."""


def write(results: Path, spec: specs.NetworkSpec, *, seed: int = 0, new_plans: bool = False) -> Path:
    """The training folder of ``spec`` with random weights, which PyTorch draws."""
    pytest.importorskip("torch")
    return layout.write_training_folder(results, spec, layout.random_state_dict(spec, seed), new_plans=new_plans)


def write_state(results: Path, spec: specs.NetworkSpec, state: dict[str, "torch.Tensor"]) -> Path:
    """The training folder of ``spec`` with the weights in ``state``, whether they fit or not."""
    return layout.write_training_folder(results, spec, state)
