"""The way from one vertebra to the next: how far it is, how far it should be, and where the spine goes on.

Knows measured vertebrae and the anatomical order; nothing of voxels. All in patient millimetres (LPS), not by z alone,
since spines bend and patients are tilted.
"""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation.vertebrae import LEVEL_MM
from openscans.types import HEAD_TO_FOOT, Vertebra

VARIANTS = frozenset({"T13", "L6"})
"""Vertebrae that most people do not have; their absence is no gap in the numbering."""

Vector = NDArray[np.float64]

TO_FOOT: Vector = np.array([0.0, 0.0, -1.0])


def levels_between(upper: str, lower: str) -> list[str]:
    """The levels that most people have between two."""
    first, last = HEAD_TO_FOOT.index(upper), HEAD_TO_FOOT.index(lower)
    return [level for level in HEAD_TO_FOOT[first + 1 : last] if level not in VARIANTS]


def are_neighbours(upper: str, lower: str) -> bool:
    """Whether most people have no level between the two."""
    return not levels_between(upper, lower)


def way_mm(upper: Vertebra, lower: Vertebra) -> Vector:
    """From one to the other: between their bodies where both have one, else between their centres of mass."""
    if upper.body is not None and lower.body is not None:
        start, end = upper.body.center_mm, lower.body.center_mm
    else:
        start, end = upper.center_mm, lower.center_mm
    return np.subtract(astuple(end), astuple(start))


def steps(upper: Vertebra, lower: Vertebra) -> float:
    """How far it is from one to the other, in distances that are usual between neighbours of their regions."""
    usual_mm = (LEVEL_MM[upper.label[0]] + LEVEL_MM[lower.label[0]]) / 2
    return float(np.linalg.norm(way_mm(upper, lower))) / usual_mm


def usual_steps(vertebrae: Sequence[Vertebra]) -> float | None:
    """The median of `steps` between neighbours, since patients differ in size; None where there are no two."""
    found = [
        steps(upper, lower)
        for upper, lower in pairwise(vertebrae)
        if are_neighbours(upper.label, lower.label) and not (upper.truncated or lower.truncated)
    ]
    return float(np.median(found)) if found else None


def goes_back(vertebrae: Sequence[Vertebra], index: int) -> bool:
    """Whether the step from vertebra ``index`` to the next one runs against the spine around the two.

    That is from the one before to the one after them, or whichever there is; towards the foot where there are but two.
    """
    step = way_mm(vertebrae[index], vertebrae[index + 1])
    if len(vertebrae) == 2:
        return bool(step @ TO_FOOT < 0)
    first, last = max(index - 1, 0), min(index + 2, len(vertebrae) - 1)
    return bool(step @ way_mm(vertebrae[first], vertebrae[last]) < 0)
