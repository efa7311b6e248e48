"""What the small networks are trained with: phantoms as a network sees them, and patches of them with their labels.

Knows how phantoms are drawn and how networks' intensities are normalised; nothing of training.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray

from openscans.networks.normalisation import ZScoreNormalisation
from openscans.segmentation import grids, resampling
from openscans.types import Voxel
from phantom import drawing, grid, mr, spine
from phantom.specs import NetworkSpec

FIRST_TRAINING_SEED = 1000
"""Seeds of training phantoms start here; smaller ones are never seen in training."""

TURN_DEG = 22.0
"""Training scans are turned by up to so much about each axis, so that oblique scans are familiar."""

MR_TURN_DEG = (15.0, 5.0, 8.0)
"""A technician lays sagittal slices along the spine, so that they are hardly turned out of its plane."""


@dataclass(frozen=True)
class Scan:
    """One training image: normalised intensities and the network's labels, both (z, y, x)."""

    image: NDArray[np.float16]
    labels: NDArray[np.uint8]
    inside: NDArray[np.intp]


def labels_of(spec: NetworkSpec) -> NDArray[np.uint8]:
    """A table from the phantom's label numbers to those of ``spec``."""
    numbers = {name: number for number, name in spec.labels.items()}
    table = np.zeros(256, np.uint8)
    for name, number in spine.LABELS.items():
        # 756 has no S1: it is part of the sacrum.
        table[number] = numbers.get(f"vertebrae_{name}", numbers["sacrum"])
    return table


def used_heads(spec: NetworkSpec) -> list[int]:
    """The labels of ``spec`` that phantoms show, background first."""
    return sorted(set(labels_of(spec).tolist()))


def scans(spec: NetworkSpec, count: int) -> list[Scan]:
    """Phantoms as the network sees them: whole and in part, at its spacing, turned, with more or less noise."""
    random = np.random.default_rng(spec.dataset)
    choose = _choose_mr if spec.modality == "MR" else _choose_ct
    chosen = [choose(spec, FIRST_TRAINING_SEED + index, random) for index in range(count)]
    # Not forked: a child of a process in which PyTorch has threads may never end.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as drawers:
        drawn = [drawers.submit(draw) for draw in chosen]
        return [scan.result() for scan in drawn]


@dataclass(frozen=True)
class _CtSetting:
    """What of a CT is left to chance."""

    seed: int
    levels: Sequence[str]
    spacing_mm: float
    angles_deg: tuple[float, ...]
    noise_hu: float


def _choose_ct(spec: NetworkSpec, seed: int, random: np.random.Generator) -> Callable[[], Scan]:
    levels = _whole_or_part(random)
    spacing_mm = spec.spacing_mm * random.uniform(0.98, 1.02)
    angles_deg = random.uniform(-TURN_DEG, TURN_DEG, 3) * (random.random() > 0.25)
    setting = _CtSetting(seed, levels, spacing_mm, tuple(angles_deg.tolist()), float(random.uniform(4, 30)))
    return partial(_ct, spec, setting)


def _ct(spec: NetworkSpec, setting: _CtSetting) -> Scan:
    phantom = spine.describe(setting.seed, setting.levels)
    shape, affine = grid.turned(phantom, [setting.spacing_mm] * 3, setting.angles_deg)
    voxels, labels = drawing.render(phantom, shape, affine, noise_hu=setting.noise_hu, seed=setting.seed)
    image = (np.clip(voxels, *spec.clip_hu) - spec.mean_hu) / spec.std_hu
    # Networks see canonical images, whose x and y grow to the right and to the front; the grid's grow the other way.
    canonical = (slice(None), slice(None, None, -1), slice(None, None, -1))
    own = np.ascontiguousarray(labels_of(spec)[labels][canonical])
    return Scan(np.ascontiguousarray(image.astype(np.float16)[canonical]), own, np.argwhere(own)[::17])


@dataclass(frozen=True)
class _MrSetting:
    """What of an MR is left to chance."""

    seed: int
    levels: Sequence[str]
    in_plane_mm: float
    between_mm: float
    angles_deg: tuple[float, ...]
    sequence: mr.Sequence


def _choose_mr(spec: NetworkSpec, seed: int, random: np.random.Generator) -> Callable[[], Scan]:
    """Slices and sensitivities of every kind in which a spine's MR is taken, T1 and T2 in turn."""
    levels = _whole_or_part(random)
    between_mm = float(random.uniform(3.3, 4.4))
    angles_deg = random.uniform(-1, 1, 3) * MR_TURN_DEG
    sequence = mr.Sequence(
        "T1" if seed % 2 else "T2",
        thickness_mm=between_mm * float(random.uniform(0.8, 1.0)),
        bias=float(random.uniform(0, 0.08)),
        coils=float(random.uniform(0, 0.8)),
        noise=float(random.uniform(0.01, 0.04)),
    )
    in_plane_mm = spec.spacing_mm * float(random.uniform(0.75, 1.1))
    return partial(_mr, spec, _MrSetting(seed, levels, in_plane_mm, between_mm, tuple(angles_deg.tolist()), sequence))


def _mr(spec: NetworkSpec, setting: _MrSetting) -> Scan:
    phantom = spine.describe(setting.seed, setting.levels)
    shape, affine = grid.sagittal(phantom, setting.in_plane_mm, setting.between_mm, angles_deg=setting.angles_deg)
    signal, _ = mr.render(phantom, shape, affine, setting.sequence, seed=setting.seed)
    z, y, x = shape
    seen = grids.model_grid(affine, grids.whole_box(Voxel(x, y, z)), [spec.spacing_mm] * 3)
    image = ZScoreNormalisation()(np.trunc(resampling.resample(signal, seen, truncate=False)))
    # Drawn where the network's samples lie: thick slices would give vertebrae their steps.
    _, labels = drawing.draw(phantom, seen.shape_zyx, _affine_of(seen, affine), mr.TISSUES["T1"])
    own = labels_of(spec)[labels]
    return Scan(image.astype(np.float16), own, np.argwhere(own)[::17])


def _affine_of(seen: grids.ModelGrid, affine_lps: grid.Affine) -> grid.Affine:
    """From an index (x, y, z) of ``seen`` to LPS mm."""
    result = affine_lps.copy()
    for column, axis in enumerate(seen.axes):
        result[:3, column] = affine_lps[:3, axis.source] * axis.step
        result[:3, 3] += affine_lps[:3, axis.source] * axis.first
    return result


def _whole_or_part(random: np.random.Generator) -> Sequence[str]:
    """All levels for every other phantom; else neighbours, as few as a scan of the neck or the lower back shows."""
    if random.random() < 0.5:
        return spine.LEVELS
    count = int(random.integers(4, 15))
    first = int(random.integers(len(spine.LEVELS) - count + 1))
    return spine.LEVELS[first : first + count]


def patches(
    spec: NetworkSpec, images: list[Scan], batch: int, random: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of ``batch`` (patches, 1, z, y, x) and (patches, z, y, x)."""
    while True:
        chosen = [_patch(spec, images[random.integers(len(images))], random) for _ in range(batch)]
        yield (
            torch.from_numpy(np.stack([image for image, _ in chosen])[:, None]),
            torch.from_numpy(np.stack([labels for _, labels in chosen])),
        )


def _patch(spec: NetworkSpec, scan: Scan, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A random patch, mostly near the spine, padded with 0 after normalisation as nnU-Net pads at the image's edge."""
    patch = np.array(spec.patch_zyx)
    size = np.array(scan.image.shape)
    # Now and then the scan ends within the patch, as it does where the field of view cuts the spine.
    cut_low, cut_high = np.zeros(3, int), size.copy()
    middle = scan.inside[random.integers(len(scan.inside))] if random.random() < 0.9 else random.integers(0, size)
    start = middle - patch // 2 + random.integers(-patch // 3, patch // 3 + 1)
    start = np.clip(start, -patch // 6, np.maximum(size - patch + patch // 6, 0))
    if random.random() < 0.3:
        axis, depth = random.integers(3), random.random() / 2
        if random.random() < 0.5:
            cut_low[axis] = start[axis] + int(depth * patch[axis])
        else:
            cut_high[axis] = min(size[axis], start[axis] + int((1 - depth) * patch[axis]))
    image = np.zeros(spec.patch_zyx, np.float32)
    labels = np.zeros(spec.patch_zyx, np.int64)
    low, high = np.maximum(np.maximum(start, cut_low), 0), np.minimum(start + patch, cut_high)
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    image[target] = scan.image[source]
    labels[target] = scan.labels[source]
    return image, labels
