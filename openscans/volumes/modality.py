"""Whether values may be those of a CT, where no header tells the modality; numpy only."""

import numpy as np

from openscans.types import ResultWarning, WarningCode
from openscans.volumes.values import Voxels

THINNEST_TISSUE_HU = -200
"""Fat has some -100 HU, lungs -900 to -500 and air -1000. An MR has no values below 0 but what resampling leaves beside
edges: down to -47 where its tissue reaches 833, in one of TotalSegmentator's own examples."""

LEAST_THIN = 0.001
"""The share of a CT's voxels that are thinner: a third in an abdomen with the air around it, and a cut of 10 cm within
the body exceeds this with 1 ml of gas. Fewer may be there by accident."""

MODALITY_ASSUMED = ResultWarning(
    WarningCode.MODALITY_ASSUMED,
    "The format does not tell CT from MR. The image was taken for a CT, but has no air as a CT in HU has. If it is an"
    " MR, ask for the model of MR; if its values are no HU, labels may be wrong or lacking.",
)


def has_air(voxels: Voxels) -> bool:
    """Whether enough of ``voxels``, of any shape, are as thin as a CT's air, lungs and gas in HU."""
    # By planes, for the comparison's result takes as much memory again; single numbers would take a second.
    planes = voxels if voxels.ndim > 1 else voxels[np.newaxis]
    thin = sum(int(np.count_nonzero(plane < THINNEST_TISSUE_HU)) for plane in planes)
    return thin >= LEAST_THIN * voxels.size


def assumed_ct_warnings(voxels: Voxels) -> tuple[ResultWarning, ...]:
    """A warning where ``voxels`` (z, y, x), which nobody called a CT, have next to nothing of a CT's air.

    Nearly every CT has some, so that this is silent for a CT in HU and told of an MR, of stored values from 0 on and of
    values between 0 and 1; of a CT that was cut to what lies within the body, too.
    """
    return () if has_air(voxels) else (MODALITY_ASSUMED,)
