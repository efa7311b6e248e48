"""How well the small networks do on phantoms they have never seen, through the service's own pipeline.

python -m phantom.evaluate [--results phantom/weights] [--seeds 0 1 2]
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openscans import networks
from openscans.progress import ignore_progress
from openscans.segmentation import labelling, plausibility, resampling, vertebrae
from openscans.types import InferenceOptions
from openscans.volumes import Volume
from phantom import drawing, grid, mr, spine
from phantom.layout import training_folder
from phantom.specs import SPECS

STEP, MR_STEP = 0.8, 0.5

CRUMB_ML = 1.0
"""The small MR network takes crumbs of tissue for other levels; the phantom's C1, its smallest vertebra, has 7 ml."""

PARTS = (spine.LEVELS, spine.LEVELS[:10], spine.LEVELS[9:19], spine.LEVELS[17:])

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """One network on one scan: how many vertebrae are there, found, and wrongly named; and how far off they lie."""

    there: int
    found: int
    wrong: int
    errors_mm: tuple[float, ...]
    dice: tuple[float, ...]


def scan(seed: int) -> tuple[spine.Phantom, Volume, NDArray[np.uint8]]:
    """A phantom that was never trained on, whole or in part, straight or turned, with usual spacings and noise."""
    random = np.random.default_rng(seed)
    phantom = spine.describe(seed, PARTS[seed % len(PARTS)])
    in_plane, along = random.uniform(0.8, 1.3), random.uniform(1.0, 2.5)
    angles = random.uniform(-15, 15, 3) * (seed % 2)
    shape, affine = grid.turned(phantom, (in_plane, in_plane, along), angles.tolist())
    voxels, labels = drawing.render(phantom, shape, affine, noise_hu=float(random.uniform(8, 25)), seed=seed)
    return phantom, Volume(voxels, affine), labels


def mr_scan(
    seed: int, levels: Sequence[str] | None = None, *, in_plane_mm: float = 0.7, width_mm: float = 88.0
) -> tuple[spine.Phantom, Volume, NDArray[np.uint8]]:
    """The same spines, or ``levels`` of them, in sagittal slices, as MR is taken: T2 for even seeds, else T1."""
    random = np.random.default_rng(seed)
    phantom = spine.describe(seed, levels or PARTS[seed % len(PARTS)])
    between_mm = float(random.uniform(3.3, 4.4))
    angles = random.uniform(-1, 1, 3) * (10, 3, 5) * (seed % 2)
    shape, affine = grid.sagittal(phantom, in_plane_mm, between_mm, width_mm=width_mm, angles_deg=angles.tolist())
    sequence = mr.Sequence("T1" if seed % 2 else "T2", thickness_mm=0.9 * between_mm)
    signal, labels = mr.render(phantom, shape, affine, sequence, seed=seed)
    return phantom, Volume(signal, affine), labels


def evaluate(results: Path, seeds: list[int]) -> Iterator[tuple[int, int, Score]]:
    """For each seed and dataset its score: 292 and 297 behind the localiser 298, and 756 on an MR."""
    with tempfile.TemporaryDirectory() as cache:
        options = InferenceOptions(threads=None, precision="float32", cache_folder=Path(cache))
        loaded = {
            dataset: networks.load_folder(training_folder(results, SPECS[dataset]), device="cpu", options=options)
            for dataset in (292, 297, 298, 756)
            if training_folder(results, SPECS[dataset]).is_dir()
        }
        for seed in seeds:
            phantom, volume, labels = scan(seed)
            roi = None
            if 298 in loaded:
                roi = labelling.localise(volume, loaded[298], step=STEP, report=ignore_progress)
            box = roi.box if roi else None
            for dataset in (292, 297):
                if dataset in loaded:
                    found = labelling.segment(volume, box, loaded[dataset], step=STEP, report=ignore_progress)
                    yield seed, dataset, score(phantom, volume, labels, found)
            if 756 in loaded:
                phantom, volume, labels = mr_scan(seed)
                found = labelling.segment(volume, None, loaded[756], step=MR_STEP, report=ignore_progress)
                yield seed, 756, score(phantom, volume, labels, found)


def score(phantom: spine.Phantom, volume: Volume, labels: NDArray[np.uint8], found: vertebrae.LabelMap) -> Score:
    """Compare a label map with the truth: centres with the phantom's, Dice with its rendered ``labels`` (z, y, x)."""
    truth = {name: true for name, true in drawing.truth(phantom).items() if name in found.names.values()}
    measured, _ = plausibility.drop_fragments(vertebrae.measure(found, volume))
    client = resampling.volume_labels(found.labels, found.grid, volume.size)
    errors, dice = [], []
    for one in measured:
        if one.label not in truth:
            continue
        center = (one.center_mm.x, one.center_mm.y, one.center_mm.z)
        errors.append(float(np.linalg.norm(np.subtract(center, truth[one.label].center_mm))))
        number = next(number for number, name in found.names.items() if name == one.label)
        own, true = client == number, labels == spine.LABELS[one.label]
        dice.append(2 * int((own & true).sum()) / max(int(own.sum()) + int(true.sum()), 1))
    wrong = sum(one.label not in truth for one in measured)
    return Score(len(truth), len(measured) - wrong, wrong, tuple(errors), tuple(dice))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    arguments = parser.parse_args()
    log.info("| phantom | network | vertebrae | found | wrong | centre error mean / max (mm) | Dice mean / min |")
    log.info("|---|---|---|---|---|---|---|")
    for seed, dataset, one in evaluate(arguments.results, arguments.seeds):
        errors, dice = one.errors_mm or (float("nan"),), one.dice or (0.0,)
        log.info(
            f"| {seed} | {dataset} | {one.there} | {one.found} | {one.wrong} "
            f"| {np.mean(errors):.2f} / {max(errors):.2f} | {np.mean(dice):.3f} / {min(dice):.3f} |"
        )


if __name__ == "__main__":
    main()
