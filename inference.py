"""The pipeline: a path becomes vertebrae. Localise → crop → label → measure, telling how far it is.

Knows the order of the steps; nothing of HTTP, processes, or where weights come from.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

import grids
import networks
import tiles
import vertebrae
import volumes
from errors import DamagedWeights
from findings import (
    Bounds,
    Detection,
    EngineOptions,
    ImageFacts,
    Order,
    Point,
    SlicePixel,
    TrainedModel,
    Vertebra,
    Voxel,
)
from progress import Report, StageReport

LOCALISER_MARGIN_MM = 20.0
"""Added on every side of the spine's box, as TotalSegmentator adds it for a subset of its classes (`python_api`)."""

LOCALISER_STEP = 0.8
"""Sliding window step of the whole-body networks, as a share of the patch (TotalSegmentator, `nnunet.py`)."""


class Stopwatch:
    """Wall time of each stage, in the order in which they ended."""

    def __init__(self) -> None:
        self._since = perf_counter()
        self.timings_ms: dict[str, int] = {}

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.timings_ms[stage] = round((now - self._since) * 1000)
        self._since = now


class Pipeline:
    """Detects vertebrae, and keeps the networks it has loaded for the next image."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._networks: dict[tuple[str, str], networks.Network] = {}

    def modality(self, path: Path, series_uid: str | None) -> str | None:
        """ "CT" or "MR" as the headers say, None where the format does not tell."""
        return volumes.modality_of(path, series_uid=series_uid)

    def detect(self, order: Order, report: StageReport) -> Detection:
        """Read the image and find its vertebrae. Raises VolumeError, ModelError, OutOfMemory, and Cancelled."""
        watch = Stopwatch()
        volume = volumes.read(order.path, series_uid=order.series_uid, report=partial(report, "reading"))
        watch.lap("read")
        device, fallback = networks.choose_device(order.device)
        notices = [*volume.notices, *([fallback] if fallback else [])]
        box: Bounds | None = grids.whole(size_of(volume))
        if order.localiser is not None:
            localiser = self._network(order.localiser, device)
            box = localise(volume, localiser, partial(report, "localising"))
            watch.lap("localise")
        found: list[Vertebra] = []
        if box is not None:
            segmenter = self._network(order.segmenter, device)
            label_map = segment(volume, box, segmenter, step=order.step, report=partial(report, "segmenting"))
            watch.lap("segment")
            report("measuring", 0, 1)
            measured = vertebrae.measure(label_map, volume.affine_lps, size_of(volume))
            whole, fragments = vertebrae.without_fragments(measured)
            found = located(whole, volume)
            notices += fragments
            report("measuring", 1, 1)
            watch.lap("measure")
        return Detection(
            vertebrae=tuple(found),
            image=facts_of(volume),
            order=order,
            device=device,
            warnings=(*notices, *vertebrae.doubts(found)),
            timings_ms=watch.timings_ms,
        )

    def _network(self, model: TrainedModel, device: str) -> networks.Network:
        key = (model.sha256, device)
        if key not in self._networks:
            self._networks[key] = networks.load(model.folder, device=device, options=self._options)
        return self._networks[key]


def localise(volume: volumes.Volume, network: networks.Network, report: Report) -> Bounds | None:
    """The box of the whole spine with its margin, in the client's voxels; None where there is no vertebra."""
    everything = grids.whole(size_of(volume))
    found = segment(volume, everything, network, step=LOCALISER_STEP, report=report, whole_numbers=False)
    spine = vertebrae.extent(found)
    if spine is None:
        return None
    return grids.grown(spine, volume.affine_lps, margin_mm=LOCALISER_MARGIN_MM, size=size_of(volume))


def segment(
    volume: volumes.Volume,
    box: Bounds,
    network: networks.Network,
    *,
    step: float,
    report: Report,
    whole_numbers: bool = True,
) -> vertebrae.LabelMap:
    """Run ``network`` over ``box`` at its own spacing.

    ``whole_numbers``: the image is truncated to integers before it is resampled, as TotalSegmentator truncates a crop
    (and not the whole image). After resampling it is truncated in any case.
    """
    names = vertebrae.names_of(network.plan.labels)
    if not names:
        raise DamagedWeights(f"The labels of {network.plan.dataset_name} name no vertebra.")
    z_mm, y_mm, x_mm = network.plan.spacing_zyx_mm
    grid = grids.model_grid(volume.affine_lps, box, (x_mm, y_mm, z_mm))
    image = grids.sample(volume.voxels, grid, truncate=whole_numbers)
    np.trunc(image, out=image)
    prediction = _predict_inside(image, network, step=step, report=report)
    return vertebrae.LabelMap(prediction.labels, prediction.probabilities, grid, names)


def _predict_inside(
    image: NDArray[np.float32], network: networks.Network, *, step: float, report: Report
) -> tiles.Prediction:
    """Predict within the box of non-zero voxels, as nnU-Net crops before it normalises; 0 (background) outside."""
    inside = _nonzero_box(image)
    labels = np.zeros(image.shape, np.uint8)
    probabilities = np.zeros(image.shape, np.float16)
    if inside is not None:
        prediction = tiles.predict(network.plan.normalise(image[inside]), network, step=step, report=report)
        labels[inside] = prediction.labels
        probabilities[inside] = prediction.probabilities
    return tiles.Prediction(labels, probabilities)


def _nonzero_box(image: NDArray[np.float32]) -> tuple[slice, slice, slice] | None:
    slices = []
    for axis in range(3):
        planes = np.flatnonzero(image.any(axis=tuple(other for other in range(3) if other != axis)))
        if planes.size == 0:
            return None
        slices.append(slice(int(planes[0]), int(planes[-1]) + 1))
    return slices[0], slices[1], slices[2]


def located(found: list[Vertebra], volume: volumes.Volume) -> list[Vertebra]:
    """``found`` with the DICOM instance and pixel nearest to each centre, where the volume has instances."""
    if not volume.instances:
        return found
    return [replace(vertebra, slice=_slice_pixel(vertebra.center, volume)) for vertebra in found]


def _slice_pixel(center: Point, volume: volumes.Volume) -> SlicePixel:
    nearest = volume.instances[min(max(round(center.z), 0), len(volume.instances) - 1)]
    return SlicePixel(nearest.sop_instance_uid, nearest.instance_number, x=round(center.x), y=round(center.y))


def size_of(volume: volumes.Volume) -> Voxel:
    z, y, x = volume.voxels.shape
    return Voxel(x, y, z)


def facts_of(volume: volumes.Volume) -> ImageFacts:
    return ImageFacts(
        modality=volume.modality,
        size=size_of(volume),
        spacing_mm=Point(*grids.spacing_mm(volume.affine_lps)),
        series_instance_uid=volume.series_instance_uid,
    )
