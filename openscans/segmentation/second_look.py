"""When the spine is looked for once more, by a finer network than the localiser, and what is said of that.

Knows label maps and boxes; nothing of how networks run, when they are loaded or where they come from.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from openscans.segmentation import grids
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import HEAD_TO_FOOT, Bounds, ResultWarning, Voxel, WarningCode
from openscans.volumes import Affine

LEAST_CUT_MM2 = 35.0
"""Of a face, that vertebrae cover. A speck that is taken for no vertebra (0.2 ml, as a cube) has so much on a side, and
what a face cuts of a vertebra, be it a spinous process, is larger."""

LEAST_WIDER_MM = 3.0
"""By how much a box must reach farther to show more: a sample of the finer network. Less is chance."""


@dataclass(frozen=True)
class Face:
    """Of a box of the volume's voxels: the one at the least index of ``axis`` (0, 1, 2 for x, y, z), or the last."""

    axis: int
    last: bool


@dataclass(frozen=True)
class Cut:
    """The vertebrae that faces of a crop cut, from head to foot, and those faces; none is a face of the image."""

    labels: tuple[str, ...]
    faces: tuple[Face, ...]


@dataclass(frozen=True)
class Doubt:
    """Why the localiser, whose samples are ``localiser_mm`` apart, is in doubt; ``cut`` None: it found no spine."""

    localiser_mm: float
    cut: Cut | None = None

    def __str__(self) -> str:
        if self.cut is None:
            return f"The network at {self.localiser_mm:g} mm found no spine."
        reach = f"{_join(self.cut.labels)} reach{'es' if len(self.cut.labels) == 1 else ''}"
        return f"{reach} out of the part of the image in which the network at {self.localiser_mm:g} mm found the spine."


def find_cut(found: LabelMap, affine_lps: Affine, size: Voxel) -> Cut | None:
    """The vertebrae that the crop of ``found`` cuts in an image of ``size``; None where it cuts none."""
    labels: set[str] = set()
    faces: list[Face] = []
    spacings_mm = grids.sample_spacing_mm(found.grid, affine_lps)
    for number, axis in enumerate(found.grid.axes):
        sample_mm2 = float(np.prod(spacings_mm)) / spacings_mm[number]
        for sample, voxel in ((0, axis.first), (-1, axis.last)):
            counts = _counts(found, sample, array_axis=2 - number)
            inside = voxel not in (0, astuple(size)[axis.source] - 1)
            if inside and sum(counts.values()) * sample_mm2 >= LEAST_CUT_MM2:
                labels.update(counts)
                faces.append(Face(axis.source, last=voxel == max(axis.first, axis.last)))
    return Cut(tuple(sorted(labels, key=HEAD_TO_FOOT.index)), tuple(faces)) if faces else None


def _counts(found: LabelMap, sample: int, *, array_axis: int) -> dict[str, int]:
    """Of each vertebra the samples on a plane across ``array_axis`` (of z, y, x)."""
    counts = np.bincount(found.labels.take(sample, axis=array_axis).ravel(), minlength=256)
    return {name: int(counts[number]) for number, name in found.names.items() if counts[number]}


def is_wider(box: Bounds, first: Bounds, cut: Cut | None, affine_lps: Affine) -> bool:
    """Whether ``box`` shows more than ``first`` beyond one of the faces that ``cut``."""
    spacings_mm = grids.spacing_mm(affine_lps)
    faces = () if cut is None else cut.faces
    return any(_gain(box, first, face) * spacings_mm[face.axis] >= LEAST_WIDER_MM for face in faces)


def _gain(box: Bounds, first: Bounds, face: Face) -> int:
    """Voxels by which ``box`` reaches farther than ``first`` there."""
    if face.last:
        return int(astuple(box.max)[face.axis] - astuple(first.max)[face.axis])
    return int(astuple(first.min)[face.axis] - astuple(box.min)[face.axis])


def found_warning(doubt: Doubt, again_mm: float, *, still: Cut | None) -> ResultWarning:
    """The network of samples ``again_mm`` apart found the spine, or more of it; ``still``: what is cut now."""
    outcome = "found it." if doubt.cut is None else "found more of it, which was labelled."
    left = "" if still is None else f" Cut even so: {_join(still.labels)}."
    return _warning(doubt, again_mm, f"looked again and {outcome}{left}")


def none_warning(doubt: Doubt, again_mm: float) -> ResultWarning:
    """It found no more than the localiser."""
    outcome = "found none either." if doubt.cut is None else "found no more of it there: it may be cut."
    return _warning(doubt, again_mm, f"looked again and {outcome}")


def whole_warning(doubt: Doubt, again_mm: float) -> ResultWarning:
    """It labelled the whole image, as no box was found."""
    return _warning(doubt, again_mm, "labelled the whole image.")


def missing_warning(doubt: Doubt, reason: str) -> ResultWarning:
    """Nobody looked again, for a ``reason`` in a sentence."""
    return ResultWarning(
        WarningCode.SECOND_LOOK_MISSING, f"{doubt} A finer network, which would look again, did not: {reason}"
    )


def _warning(doubt: Doubt, again_mm: float, outcome: str) -> ResultWarning:
    return ResultWarning(WarningCode.LOCALISED_AGAIN, f"{doubt} That at {again_mm:g} mm {outcome}")


def _join(names: Sequence[str]) -> str:
    """ "T12, L1 and L2"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
