"""An image becomes a label map by one network: on the network's grid, in its patches, within what is not empty.

Knows volumes, grids and networks; not which network comes when, nor where it comes from. As TotalSegmentator does it,
and where something is left out that changes nothing in the labels, it is said there.
"""

import numpy as np
from numpy.typing import NDArray

from openscans.errors import DamagedWeights
from openscans.networks import Network
from openscans.progress import Report
from openscans.segmentation import grids, resampling, sliding_window, vertebrae
from openscans.segmentation.roi import SpineRoi, spine_roi
from openscans.types import Bounds
from openscans.volumes import AIR_HU, Volume


def localise(
    volume: Volume,
    network: Network,
    *,
    step: float,
    report: Report,
    air_below: float | None = AIR_HU,
) -> SpineRoi | None:
    """The box and the way of the whole spine; None where there is no vertebra.

    ``air_below``: only patches that hold more than that are computed; None for all.
    """
    names = _names(network)
    grid = _grid(volume, grids.whole_box(volume.size), network)
    # TotalSegmentator truncates a crop (`cropping.crop_to_mask` with dtype int32), and not the whole image, to integers
    # before it is resampled.
    image = resampling.resample(volume.voxels, grid, truncate=False)
    np.trunc(image, out=image)
    # Only in nnU-Net's own grid: the box that is found decides where all later samples lie.
    mask = None if air_below is None else image > air_below
    found = _predict_inside(image, network, sliding_window.Coverage(step, mask), report=report)
    label_map = vertebrae.LabelMap(found.labels, found.probabilities, grid, names)
    return spine_roi(label_map, volume.affine_lps, volume.size)


def segment(
    volume: Volume,
    box: Bounds | None,
    network: Network,
    *,
    step: float,
    report: Report,
    roi: SpineRoi | None = None,
) -> vertebrae.LabelMap:
    """Run ``network`` over ``box`` at its own spacing; where a ``roi`` is given, only along the spine.

    ``box`` is the crop that a localiser found, truncated to integers before it is resampled (see `localise`); None
    where no localiser ran: the whole image, truncated only afterwards.
    """
    names = _names(network)
    grid = _grid(volume, box or grids.whole_box(volume.size), network)
    image = resampling.resample(volume.voxels, grid, truncate=box is not None)
    np.trunc(image, out=image)
    coverage = sliding_window.Coverage(step)
    if roi is not None:
        coverage = sliding_window.Coverage(step, roi.on(grid), follow_spine=roi.follow_spine)
    found = _predict_inside(image, network, coverage, report=report, with_runners_up=True)
    sacrum = vertebrae.sacrum_label(network.plan.labels)
    return vertebrae.LabelMap(found.labels, found.probabilities, grid, names, found.runners_up, sacrum)


def _grid(volume: Volume, box: Bounds, network: Network) -> grids.ModelGrid:
    z_mm, y_mm, x_mm = network.plan.spacing_zyx_mm
    return grids.model_grid(volume.affine_lps, box, (x_mm, y_mm, z_mm))


def _names(network: Network) -> dict[int, str]:
    names = vertebrae.vertebra_names(network.plan.labels)
    if not names:
        raise DamagedWeights(f"The labels of {network.plan.dataset_name} name no vertebra.")
    return names


def _predict_inside(
    image: NDArray[np.float32],
    network: Network,
    coverage: sliding_window.Coverage,
    *,
    report: Report,
    with_runners_up: bool = False,
) -> sliding_window.Prediction:
    """Predict within the box of non-zero voxels, as nnU-Net crops (`crop_to_nonzero`); 0 (background) outside."""
    inside = _nonzero_box(image)
    labels = np.zeros(image.shape, np.uint8)
    probabilities = np.zeros(image.shape, np.float16)
    if inside is None:
        return sliding_window.Prediction(labels, probabilities)
    found = sliding_window.predict(
        network.plan.normalise(image[inside]),
        network,
        coverage.within(inside),
        report=report,
        with_runners_up=with_runners_up,
    )
    labels[inside] = found.labels
    probabilities[inside] = found.probabilities
    return sliding_window.Prediction(labels, probabilities, found.runners_up)


def _nonzero_box(image: NDArray[np.float32]) -> tuple[slice, slice, slice] | None:
    slices = []
    for axis in range(3):
        planes = np.flatnonzero(image.any(axis=tuple(other for other in range(3) if other != axis)))
        if planes.size == 0:
            return None
        slices.append(slice(int(planes[0]), int(planes[-1]) + 1))
    return slices[0], slices[1], slices[2]
