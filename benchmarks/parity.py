"""Ours and TotalSegmentator's label map of the same image from the same weights, compared voxel by voxel.

python -m benchmarks.parity IMAGE.nii.gz --results WEIGHTS_FOLDER [--fast | --mr] [--precision float32]
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from totalsegmentator.map_to_binary import class_map

from benchmarks import totalsegmentator
from benchmarks.detect import training_folder
from openscans import networks, volumes
from openscans.progress import ignore_progress
from openscans.segmentation import grids, labelling, plausibility, resampling, vertebrae
from openscans.types import InferenceOptions, Vertebra

STEP = 0.8
MR_STEP = 0.5
NUMBERS = {name: number for number, name in vertebrae.vertebra_names(class_map["total"]).items()}
"""A vertebra's number in TotalSegmentator's class map ``total``."""


@dataclass(frozen=True)
class Parity:
    """How alike two label maps on the image's own grid are.

    ``agreement``: share of equal voxels in the box that holds the labels of either,
    ``agreement_everywhere`` in the whole image; ``dice`` per vertebra;
    ``center_voxels`` and ``bounds_voxels``: the largest difference, along any axis, of the centres and bounds of
    vertebrae that both found, specks aside.
    """

    agreement: float
    agreement_everywhere: float
    dice: dict[str, float]
    center_voxels: float
    bounds_voxels: int


def ours(
    image: Path, results: Path, *, fast: bool, precision: str, exact: bool = False
) -> tuple[NDArray[np.uint8], list[Vertebra]]:
    """Our label map (z, y, x) on the image's grid, in numbers of ``total``, and what is measured from it.

    ``exact``: every patch that TotalSegmentator computes, where by default patches follow the spine.
    """
    with tempfile.TemporaryDirectory() as cache:
        options = InferenceOptions(threads=None, precision=precision, cache_folder=Path(cache))
        volume = volumes.open(image).read()
        localiser = networks.load_folder(training_folder(results, 298), device="cpu", options=options)
        air_below = None if exact else volumes.AIR_HU
        roi = labelling.localise(volume, localiser, step=STEP, report=ignore_progress, air_below=air_below)
        if roi is None:
            return np.zeros(volume.voxels.shape, np.uint8), []
        segmenter = networks.load_folder(training_folder(results, 297 if fast else 292), device="cpu", options=options)
        found = labelling.segment(
            volume, roi.box, segmenter, step=STEP, report=ignore_progress, roi=None if exact else roi
        )
    total = np.zeros(256, np.uint8)
    for number, name in found.names.items():
        total[number] = NUMBERS[name]
    labels = total[resampling.volume_labels(found.labels, found.grid, volume.size)]
    return labels, vertebrae.measure(found, volume)


def ours_mr(image: Path, results: Path, *, precision: str) -> tuple[NDArray[np.uint8], list[Vertebra]]:
    """Our label map (z, y, x) on the grid of an MR image, in numbers of ``vertebrae_mr``, and what is measured."""
    with tempfile.TemporaryDirectory() as cache:
        options = InferenceOptions(threads=None, precision=precision, cache_folder=Path(cache))
        volume = volumes.open(image).read()
        network = networks.load_folder(training_folder(results, 756), device="cpu", options=options)
        found = labelling.segment(volume, None, network, step=MR_STEP, report=ignore_progress)
    return resampling.volume_labels(found.labels, found.grid, volume.size), vertebrae.measure(found, volume)


def theirs(image: Path, results: Path, *, fast: bool = False, task: str = "total") -> NDArray[np.uint8]:
    """TotalSegmentator's label map (z, y, x) on the image's grid, in numbers of ``task``."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "labels.nii.gz"
        totalsegmentator.segment(image, output, results, fast=fast, task=task)
        return np.ascontiguousarray(np.asanyarray(nib.load(output).dataobj).astype(np.uint8).T)


def compare(image: Path, results: Path, *, fast: bool = False, precision: str = "float32") -> Parity:
    """Run both on ``image`` with the weights under ``results``."""
    our_labels, our_vertebrae = ours(image, results, fast=fast, precision=precision)
    return parity(our_labels, theirs(image, results, fast=fast), our_vertebrae)


def compare_mr(image: Path, results: Path, *, precision: str = "float32") -> Parity:
    """Run both on ``image``, an MR, with the weights of 756 under ``results``."""
    our_labels, our_vertebrae = ours_mr(image, results, precision=precision)
    their_labels = theirs(image, results, task="vertebrae_mr")
    to_total = _total_numbers(class_map["vertebrae_mr"])
    return parity(to_total[our_labels], to_total[their_labels], our_vertebrae)


def _total_numbers(labels: Mapping[int, str]) -> NDArray[np.uint8]:
    """A table from the numbers of ``labels`` to those of the same names in ``total``."""
    numbers = {name: number for number, name in class_map["total"].items()}
    table = np.zeros(256, np.uint8)
    for number, name in labels.items():
        table[number] = numbers[name]
    return table


def parity(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], measured: Iterable[Vertebra]) -> Parity:
    """Compare label maps (z, y, x) in numbers of ``total``; ``measured`` are the vertebrae of ours."""
    inside = _box((ours > 0) | (theirs > 0))
    their_vertebrae = _measured_on_the_image(theirs)
    center, bounds = 0.0, 0
    kept, _ = plausibility.drop_fragments([*measured])
    for vertebra in kept:
        other = their_vertebrae.get(vertebra.label)
        if other is None:
            continue
        center = max(center, *_differences(vertebra.center, other.center))
        edges = (
            *_differences(vertebra.bounds.min, other.bounds.min),
            *_differences(vertebra.bounds.max, other.bounds.max),
        )
        bounds = max(bounds, *(int(edge) for edge in edges))
    return Parity(
        agreement=float(np.mean(ours[inside] == theirs[inside])),
        agreement_everywhere=float(np.mean(ours == theirs)),
        dice={name: dice for name, number in NUMBERS.items() if (dice := _dice(ours == number, theirs == number)) >= 0},
        center_voxels=center,
        bounds_voxels=bounds,
    )


def _measured_on_the_image(labels: NDArray[np.uint8]) -> dict[str, Vertebra]:
    z, y, x = labels.shape
    grid = grids.ModelGrid(grids.Axis(0, 0, x - 1, x), grids.Axis(1, 0, y - 1, y), grids.Axis(2, 0, z - 1, z))
    names = {number: name for name, number in NUMBERS.items()}
    found = vertebrae.LabelMap(labels, np.ones(labels.shape, np.float16), grid, names)
    image = volumes.Volume(labels.astype(np.int16), np.eye(4))
    return {vertebra.label: vertebra for vertebra in vertebrae.measure(found, image)}


def _differences(one: object, other: object) -> list[float]:
    return [abs(getattr(one, axis) - getattr(other, axis)) for axis in "xyz"]


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """-1 where neither holds a voxel."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else -1.0


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    planes = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in planes)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--fast", action="store_true")
    way.add_argument("--mr", action="store_true", help="the image is an MR")
    parser.add_argument("--precision", default="float32", choices=["auto", "float32"])
    arguments = parser.parse_args()
    if arguments.mr:
        found = compare_mr(arguments.image, arguments.results, precision=arguments.precision)
    else:
        found = compare(arguments.image, arguments.results, fast=arguments.fast, precision=arguments.precision)
    logging.getLogger(__name__).info(json.dumps(asdict(found), indent=2))


if __name__ == "__main__":
    main()
