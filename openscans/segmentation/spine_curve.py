"""The order of vertebrae along the spine and the distances between them, by the curve through their middles.

Knows points and numpy; nothing of voxels. The order is never that of heights: a kyphosis, a scoliosis or a patient who
lies aslant turns parts of a spine across every axis.
"""

import numpy as np
from numpy.typing import NDArray

PASSES = 2
"""Of laying the curve through the points in their order, and ordering them along it. The first order is that along the
longest axis of all points, which is right wherever no part is turned from it by 90°; more passes change nothing."""

MOST_DEGREES = 6
"""Of the curve: a spine has three bends (four with a scoliosis), and points scatter by some millimetres around it."""

CURVE_STEPS = 100
"""Pieces in which distances to the curve are measured: about 6 mm of a whole spine, which bend by 0.1 mm."""

LEAST_MM = 1.0
"""Between two vertebrae; points that coincide are two pieces of one bone, and a ratio to nothing means nothing."""

Points = NDArray[np.float64]
"""One a row, (x, y, z) in LPS, mm."""


def order_along(points_mm: Points, level_numbers: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which point comes when from head to foot, and how far each but the first lies from the one before, mm.

    ``level_numbers`` of the points grow from head to foot: the end is the head for which most pairs speak. Where they
    say nothing it is the one towards +z.
    """
    along_mm = _along_longest_axis(points_mm)
    for _ in range(PASSES):
        along_mm = _along_curve(points_mm, along_mm)
    if _runs_upwards(along_mm, points_mm, level_numbers):
        along_mm = -along_mm
    order = np.argsort(along_mm, kind="stable")
    return order, np.maximum(np.diff(along_mm[order]), LEAST_MM)


def _along_longest_axis(points_mm: Points) -> NDArray[np.float64]:
    around_middle = points_mm - points_mm.mean(axis=0)
    along: NDArray[np.float64] = around_middle @ np.linalg.svd(around_middle, full_matrices=False)[2][0]
    return along


def _along_curve(points_mm: Points, along_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where on the smooth curve through the points, in the order of ``along_mm``, each lies; beyond its ends too."""
    span = np.ptp(along_mm)
    if span == 0:
        return along_mm
    places = 2 * (along_mm - along_mm.min()) / span - 1
    degrees = min(MOST_DEGREES, max(1, (len(points_mm) - 1) // 2))
    bends = np.linalg.lstsq(np.vander(places, degrees + 1), points_mm, rcond=None)[0]
    curve = np.vander(np.linspace(-1, 1, CURVE_STEPS + 1), degrees + 1) @ bends
    steps = np.diff(curve, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    nearest = np.linalg.norm(points_mm[:, None] - (curve[:-1] + steps / 2), axis=-1).argmin(axis=1)
    directions = steps[nearest] / np.maximum(lengths[nearest], 1e-9)[:, None]
    beyond = ((points_mm - curve[nearest]) * directions).sum(axis=1)
    before = np.concatenate([[0.0], np.cumsum(lengths)])[nearest]
    along: NDArray[np.float64] = before + beyond
    return along


def _runs_upwards(along_mm: NDArray[np.float64], points_mm: Points, level_numbers: NDArray[np.float64]) -> bool:
    for downwards in (level_numbers, -points_mm[:, 2]):
        agreement = (_signs_of_pairs(along_mm) * _signs_of_pairs(downwards)).sum()
        if agreement != 0:
            return bool(agreement < 0)
    return False


def _signs_of_pairs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    signs: NDArray[np.float64] = np.sign(values[:, None] - values[None])
    return signs
