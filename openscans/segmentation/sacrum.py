"""Where the sacrum is: it carries no level, but the row of levels ends at it; knows label maps and grids."""

from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import grids
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import Vertebra
from openscans.volumes import Affine

LEAST_ML = 5.0
"""What is less may be a piece of something else. A sacrum has some 200 ml, of which a field of view may show little."""

Places = NDArray[np.float64]
"""(n, 3): of each sample, x, y, z in patient millimetres (LPS)."""


def sacrum_places(label_map: LabelMap, affine_lps: Affine) -> Places | None:
    """Where the samples of the sacrum are; None where too little of it is in view."""
    if label_map.sacrum is None:
        return None
    z, y, x = np.nonzero(label_map.labels == label_map.sacrum)
    if len(z) * grids.sample_volume_ml(label_map.grid, affine_lps) < LEAST_ML:
        return None
    places = np.ones((4, len(z)))
    for axis, indices in zip(label_map.grid.axes, (x, y, z), strict=True):
        places[axis.source] = axis.first + indices * axis.step
    found: Places = (affine_lps @ places)[:3].T
    return found


def from_body_mm(vertebra: Vertebra, places: Places) -> float:
    """How far the nearest of ``places`` is from the body of ``vertebra``, or from its centre of mass."""
    center = vertebra.center_mm if vertebra.body is None else vertebra.body.center_mm
    return float(np.linalg.norm(places - astuple(center), axis=1).min())
