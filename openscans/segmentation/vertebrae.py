"""Label numbers become vertebrae: names and their order, and from a label map each vertebra's place, size and warnings.

Knows numpy, connected components and the anatomical order; nothing of files, DICOM or JSON.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import grids
from openscans.types import HEAD_TO_FOOT, Bounds, Point, ResultWarning, Vertebra, Voxel, WarningCode

VARIANTS = frozenset({"T13", "L6"})
"""Vertebrae that most people do not have; their absence is no gap in the numbering."""

SMALLEST_VERTEBRA_ML = 0.2
"""What TotalSegmentator takes for a blob that is no organ (`remove_small_blobs`, 200 mm³). C1 has some 10 ml."""

VERTEBRA = re.compile(r"(?:vertebrae?_)?([CTLS]\d{1,2})")
"""How TotalSegmentator's label lists name a vertebra, as in ``vertebrae_L5``."""


def vertebra_names(labels: Mapping[int, str]) -> dict[int, str]:
    """Of a network's ``labels`` those that are single vertebrae: label number → "C1" … "S1"."""
    found = {number: VERTEBRA.fullmatch(name) for number, name in labels.items()}
    return {number: match[1] for number, match in found.items() if match and match[1] in HEAD_TO_FOOT}


@dataclass(frozen=True)
class LabelMap:
    """What a network found: ``labels`` and the ``probabilities`` it gave them, both (z, y, x) on ``grid``.

    ``names`` are the label numbers that are vertebrae; other labels are passed over.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]
    grid: grids.ModelGrid
    names: Mapping[int, str]

    @property
    def spine(self) -> NDArray[np.bool_]:
        """Where there is a vertebra (z, y, x)."""
        named = np.zeros(256, np.bool_)
        named[list(self.names)] = True
        return named[self.labels]


@dataclass(frozen=True)
class _Component:
    """A connected piece of one label, in samples of the model grid."""

    label: int
    voxels: int
    number: int
    low_xyz: tuple[int, int, int]
    high_xyz: tuple[int, int, int]
    mean_probability: float

    def mask(self, pieces: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.bool_]:
        """(z, y, x), of the box between ``low_xyz`` and ``high_xyz``; ``pieces`` are all components' numbers."""
        z, y, x = (slice(low, high + 1) for low, high in zip(self.low_xyz[::-1], self.high_xyz[::-1], strict=True))
        mask: NDArray[np.bool_] = pieces[z, y, x] == self.number
        return mask


def measure(found: LabelMap, affine_lps: grids.Affine, size: Voxel) -> list[Vertebra]:
    """Every vertebra of a label map, from head to foot, in the voxels of a volume of ``size``.

    Each is its label's largest connected component (26 neighbours): centre of mass, inclusive bounds, volume, and as
    confidence the mean probability of the label over the component.
    """
    pieces, components = _largest_components(found)
    vertebrae = []
    for component in components:
        center = grids.volume_centroid(found.grid, component.mask(pieces), component.low_xyz)
        vertebrae.append(_vertebra(component, found, center, affine_lps=affine_lps, size=size))
    return sorted(vertebrae, key=lambda vertebra: HEAD_TO_FOOT.index(vertebra.label))


def _largest_components(found: LabelMap) -> tuple[NDArray[np.unsignedinteger[Any]], list[_Component]]:
    """Per sample (z, y, x) the number of its component; and of each label the largest."""
    import cc3d

    labels = found.labels * found.spine
    pieces = cc3d.connected_components(labels, connectivity=26)
    statistics = cc3d.statistics(pieces, no_slice_conversion=True)
    counts = statistics["voxel_counts"]
    label_of = np.zeros(len(counts), np.uint8)
    label_of[pieces.ravel()] = labels.ravel()
    sums = np.bincount(pieces.ravel(), weights=found.probabilities.ravel(), minlength=len(counts))
    components = []
    for label in found.names:
        own = np.flatnonzero(label_of == label)
        if own.size == 0:
            continue
        piece = int(own[counts[own].argmax()])
        z0, z1, y0, y1, x0, x1 = (int(edge) for edge in statistics["bounding_boxes"][piece])
        components.append(
            _Component(
                label=label,
                voxels=int(counts[piece]),
                number=piece,
                low_xyz=(x0, y0, z0),
                high_xyz=(x1, y1, z1),
                mean_probability=float(sums[piece] / counts[piece]),
            )
        )
    return pieces, components


def _vertebra(
    component: _Component, found: LabelMap, center: Point, *, affine_lps: grids.Affine, size: Voxel
) -> Vertebra:
    bounds = grids.volume_bounds(found.grid, component.low_xyz, component.high_xyz)
    return Vertebra(
        label=found.names[component.label],
        center=center,
        center_mm=grids.lps_mm(affine_lps, center),
        bounds=bounds,
        confidence=min(component.mean_probability, 1.0),
        volume_ml=component.voxels * grids.sample_volume_ml(found.grid, affine_lps),
        truncated=_touches_edge(bounds, size),
    )


def drop_fragments(found: Sequence[Vertebra]) -> tuple[list[Vertebra], list[ResultWarning]]:
    """``found`` without specks that are too small for a vertebra, and a warning that names them."""
    specks = [vertebra.label for vertebra in found if vertebra.volume_ml < SMALLEST_VERTEBRA_ML]
    if not specks:
        return list(found), []
    text = f"Left out as too small for a vertebra (under {SMALLEST_VERTEBRA_ML} ml): {', '.join(specks)}."
    kept = [vertebra for vertebra in found if vertebra.volume_ml >= SMALLEST_VERTEBRA_ML]
    return kept, [ResultWarning(WarningCode.FRAGMENTS_IGNORED, text)]


def _touches_edge(bounds: Bounds, size: Voxel) -> bool:
    at_start = 0 in (bounds.min.x, bounds.min.y, bounds.min.z)
    return at_start or bounds.max.x == size.x - 1 or bounds.max.y == size.y - 1 or bounds.max.z == size.z - 1


def extent(found: LabelMap) -> Bounds | None:
    """The volume's voxels that hold all vertebrae together, or None where there is none."""
    inside = found.spine
    low, high = [], []
    for axis in (2, 1, 0):
        across = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero(inside.any(axis=across))
        if planes.size == 0:
            return None
        low.append(int(planes[0]))
        high.append(int(planes[-1]))
    return grids.volume_bounds(found.grid, low, high)


def plausibility_warnings(vertebrae: Sequence[Vertebra]) -> list[ResultWarning]:
    """What is implausible about vertebrae that run from head to foot. Labels are never changed."""
    if not vertebrae:
        return [ResultWarning(WarningCode.NO_VERTEBRAE, "No vertebra was found in this image.")]
    warnings = []
    missing = _missing([vertebra.label for vertebra in vertebrae])
    if missing:
        warnings.append(
            ResultWarning(
                WarningCode.NUMBERING_GAP,
                f"Not found between its neighbours: {', '.join(missing)}. Check the numbering.",
            )
        )
    for upper, lower in _out_of_order(vertebrae):
        warnings.append(ResultWarning(WarningCode.OUT_OF_ORDER, f"{lower} lies above {upper}. Check the numbering."))
    cut = [vertebra.label for vertebra in vertebrae if vertebra.truncated]
    if cut:
        warnings.append(
            ResultWarning(
                WarningCode.TOUCHING_BORDER,
                f"Cut by the edge of the image: {', '.join(cut)}. Their centres are those of the part that is seen.",
            )
        )
    return warnings


def _missing(labels: Sequence[str]) -> list[str]:
    first, last = HEAD_TO_FOOT.index(labels[0]), HEAD_TO_FOOT.index(labels[-1])
    return [label for label in HEAD_TO_FOOT[first:last] if label not in labels and label not in VARIANTS]


def _out_of_order(vertebrae: Sequence[Vertebra]) -> list[tuple[str, str]]:
    return [(upper.label, lower.label) for upper, lower in pairwise(vertebrae) if lower.center_mm.z > upper.center_mm.z]
