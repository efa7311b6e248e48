"""What a file or series becomes: voxels, where they lie in the patient, and the DICOM instances they came from."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openscans.errors import InconsistentGeometry
from openscans.types import NO_UID, Bounds, LocatedUid, Point, ResultWarning, UidLocation, Voxel, WarningCode
from openscans.volumes.body import check_body
from openscans.volumes.intensities import NOTHING_TOLD, Told
from openscans.volumes.stored import StoredSlices
from openscans.volumes.values import Voxels

FLATTEST = 1e-3
"""A voxel's volume as a share of its sides' product: 1 at right angles, and less where axes nearly coincide."""

FARTHEST_MM = 1e6
"""A kilometre, for an origin or for one voxel. Sizes reckoned from absurd figures are no numbers any more."""

FEWEST_SLICES = 3
"""Two slices have one gap between them, and no second one that could tell whether a slice is missing."""

FEW_SLICES = 10
"""A vertebra is at least 12 mm high, and slices are seldom over 5 mm apart: fewer show hardly a whole one."""

Affine = NDArray[np.float64]
"""4 × 4: an index (x, y, z, 1), centre of voxel, to patient millimetres in LPS."""


@dataclass(frozen=True)
class Instance:
    """One slice's DICOM instance; ``frame`` counts from 0 within ``file``, which has ``frames``.

    ``uid_location`` is where its UID stands, None where that does not stand in the file as it is (deflated files).
    """

    sop_instance_uid: str
    instance_number: int | None
    file: Path
    frame: int = 0
    uid_location: UidLocation | None = None
    frames: int = 1


@dataclass(frozen=True)
class Extent:
    """What the headers promise before a voxel is read: a `Volume` of ``shape_zyx`` voxels at its ``affine_lps``.

    Both are of the volume's frame. Networks see so many samples as it has millimetres, however few its voxels are.
    """

    shape_zyx: tuple[int, int, int]
    affine_lps: Affine

    def __post_init__(self) -> None:
        _check_place(self.affine_lps)
        check_body(self.shape_zyx, self.affine_lps)


@dataclass(frozen=True)
class Volume:
    """Upright, evenly spaced ``voxels`` (z, y, x): HU for CT, int16 where the values are whole and fit.

    ``affine_lps`` maps an index of ``voxels`` to LPS mm. DICOM: x is the column, y the row, z the slice along the
    normal (row direction × column direction). NIfTI: x, y, z are the array's first, second and third index.
    ``instances`` has one entry per slice of the image for DICOM and none for other formats. The UIDs are those that all
    slices share, as they stand in the file of the first one. ``told``: what the headers say of the values.

    Where the volume is the image, ``stored`` is None. Where it had to be resampled (gantry tilt, missing or unevenly
    spaced slices), ``stored`` tells where the image's slices lie in it; then whatever is told of the image in voxels
    goes through `image_point` and `image_bounds`. Millimetres are the same for both.
    """

    voxels: Voxels
    affine_lps: Affine
    modality: str | None = None
    series_uid: LocatedUid = NO_UID
    study_uid: LocatedUid = NO_UID
    frame_of_reference_uid: LocatedUid = NO_UID
    instances: tuple[Instance, ...] = ()
    warnings: tuple[ResultWarning, ...] = ()
    stored: StoredSlices | None = None
    told: Told = NOTHING_TOLD

    def __post_init__(self) -> None:
        _check_place(self.affine_lps)

    @property
    def size(self) -> Voxel:
        """Of ``voxels``, along x, y, z."""
        z, y, x = self.voxels.shape
        return Voxel(x, y, z)

    @property
    def image_size(self) -> Voxel:
        """How many columns, rows and slices the image has."""
        return self.size if self.stored is None else self.stored.image_size

    @property
    def image_spacing_mm(self) -> Point:
        """Between the image's columns, rows and slices; where these are unevenly spaced, the median."""
        x_mm, y_mm, z_mm = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        steps = 1.0 if self.stored is None else self.stored.typical_step
        return Point(float(x_mm), float(y_mm), float(z_mm) * steps)

    def image_point(self, volume_point: Point) -> Point:
        """A position in the volume's frame, in the image's: z is an index into ``instances``."""
        return volume_point if self.stored is None else self.stored.image_point(volume_point)

    def image_bounds(self, volume_box: Bounds) -> Bounds:
        """The image's voxels that hold a box of the volume's: the box around it where slices are sheared."""
        return volume_box if self.stored is None else self.stored.image_bounds(volume_box)

    def locate_uids(self, sop_instance_uids: AbstractSet[str]) -> dict[str, UidLocation]:
        """Where the UIDs that all slices share and those of instances stand in the image's files, if they do."""
        places = {
            one.sop_instance_uid: one.uid_location
            for one in self.instances
            if one.sop_instance_uid in sop_instance_uids
        }
        for shared in (self.series_uid, self.study_uid, self.frame_of_reference_uid):
            places[shared.uid] = shared.location
        return {uid: place for uid, place in places.items() if uid and place is not None}


def _check_place(affine_lps: Affine) -> None:
    if np.abs(affine_lps).max() > FARTHEST_MM:
        raise InconsistentGeometry("The header puts the image farther away than any patient, or makes it larger.")
    box_mm3 = np.linalg.norm(affine_lps[:3, :3], axis=0).prod()
    if not abs(np.linalg.det(affine_lps[:3, :3])) > FLATTEST * box_mm3:
        raise InconsistentGeometry("The image's axes are not given or coincide, so it has no place in the patient.")


def slice_count_warnings(slices: int) -> tuple[ResultWarning, ...]:
    """A warning where an image has so few slices that vertebrae are hardly seen whole."""
    if slices >= FEW_SLICES:
        return ()
    return (
        ResultWarning(WarningCode.FEW_SLICES, f"The image has only {slices} slices; hardly a vertebra is seen whole."),
    )
