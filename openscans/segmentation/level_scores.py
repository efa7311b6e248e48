"""How well a bone suits a level, and one level the next: natural logarithms, the larger the better.

Knows the anatomical order and numpy. All constants are proposals, judged on synthetic spines only
(`python -m benchmarks.sequence`).
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from openscans.types import HEAD_TO_FOOT

Scores = NDArray[np.float64]

LEAST_SHARE = 1e-3
"""What a level keeps that the network gave nothing: a bone that is wholly mistaken must not outweigh all others."""

VARIANTS = {"T13": ("T12", "L1"), "L6": ("L5", "S1")}
"""Vertebrae that most people do not have, and what they look like to a network that does not know them."""

VARIANT_COST = 2.5
"""Of a T13 or an L6: one in twelve, about as many as have a transitional vertebra."""

FEWER_COST = {("T11", "L1"): 3.0, ("L4", "S1"): 3.5}
"""Of a spine without T12 or L5, rarer than one with a vertebra more."""

DISTANCE_COST = 6.0
"""Of a distance, times |ln(distance / expected)|: neighbours differ by some 6 %, which costs less than half."""

SKIP_COST, FURTHER_SKIP_COST = 4.0, 1.0
"""Of one vertebra between two that the network did not see, and of each more; where they were is left to distances."""

LEAST_ROOM = 0.7
"""Of what two bones with another between them lie apart: collapsed bodies still keep three quarters."""

SAME_BONE_COST, SAME_BONE = 8.0, 0.6
"""Of two pieces of one bone; how near they lie, in distances between neighbours (as for labels that are repeated)."""

IMPOSSIBLE_COST = 60.0
"""Of a step that anatomy has not: more than eight bones cost that are wholly mistaken, and yet finite, so that there is
a best sequence of whatever was found."""

ANCHOR_COST = 6.0
"""Of calling a bone on the sacrum otherwise; nearly `LEAST_SHARE`'s, as the sacrum itself may be mistaken."""

MIDDLES = ("C4", "T7", "L3")
MIDDLE_STEPS_MM = (17.0, 24.0, 34.0)
"""From one level to the next in the middle of each region; between those it grows evenly, beyond them it does not."""

LEAST_SCALE, MOST_SCALE = 0.4, 1.4
"""Of a patient, to `MIDDLE_STEPS_MM`: from an infant to the tallest. Beyond it distances are no neighbours'."""

LEVEL_NUMBERS = {level: number for number, level in enumerate(HEAD_TO_FOOT)}

STEPS_MM: Scores = np.interp(range(len(HEAD_TO_FOOT)), [LEVEL_NUMBERS[middle] for middle in MIDDLES], MIDDLE_STEPS_MM)
"""To each level from the one before."""


def share_matrix(shares: Sequence[Mapping[str, float]]) -> Scores:
    """(bones, levels); a bone of which nothing is known speaks for no level."""
    rows = np.array([[of_bone.get(level, 0.0) for level in HEAD_TO_FOOT] for of_bone in shares], np.float64)
    return np.clip(np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)


def bone_scores(shares: Scores) -> Scores:
    """(bones, levels), of ``shares`` alone."""
    floored = np.maximum(shares, LEAST_SHARE)
    for variant, (upper, lower) in VARIANTS.items():
        between = (floored[:, LEVEL_NUMBERS[upper]] + floored[:, LEVEL_NUMBERS[lower]]) / 2
        own = LEVEL_NUMBERS[variant]
        floored[:, own] = np.maximum(floored[:, own], between)
    scores: Scores = np.log(floored)
    scores[:, [LEVEL_NUMBERS[variant] for variant in VARIANTS]] -= VARIANT_COST
    return scores


def anchor_scores(others: Mapping[str, float]) -> Scores:
    """(levels), of a bone that must be one of ``others``, each at its own cost."""
    scores = np.full(len(HEAD_TO_FOOT), -ANCHOR_COST)
    for level, cost in others.items():
        scores[LEVEL_NUMBERS[level]] = -cost
    return scores


def patient_scale(gaps_mm: Scores, level_numbers: Scores) -> float:
    """The patient's size: the median ratio of ``gaps_mm`` to those expected of the levels they lie between.

    Of an even number the lower one of the two in the middle: what is not seen makes gaps wider, and nothing narrower.
    """
    if not len(gaps_mm):
        return 1.0
    expected = np.interp((level_numbers[:-1] + level_numbers[1:]) / 2, range(len(STEPS_MM)), STEPS_MM)
    ratios = np.sort(gaps_mm / expected)
    return float(np.clip(ratios[(len(ratios) - 1) // 2], LEAST_SCALE, MOST_SCALE))


def step_scores(gaps_mm: Scores, scale: float) -> Scores:
    """(gaps, upper level, lower level), each gap being the distance from a bone to the next one."""
    scores = _usual_steps(gaps_mm, scale)
    for neighbours in FEWER_COST:
        upper, lower = (LEVEL_NUMBERS[level] for level in neighbours)
        scores[:, upper, lower] = np.maximum(scores[:, upper, lower], _steps_of_fewer(neighbours, gaps_mm, scale))
    return scores


def is_step_of_fewer(neighbours: tuple[str, str], gap_mm: float, scale: float) -> bool:
    """Whether it is likelier that no vertebra is between ``neighbours`` of `FEWER_COST` than that it was not seen."""
    gaps_mm = np.array([gap_mm])
    upper, lower = (LEVEL_NUMBERS[level] for level in neighbours)
    return bool(_steps_of_fewer(neighbours, gaps_mm, scale)[0] > _usual_steps(gaps_mm, scale)[0, upper, lower])


def _steps_of_fewer(neighbours: tuple[str, str], gaps_mm: Scores, scale: float) -> Scores:
    expected_mm = scale * STEPS_MM[LEVEL_NUMBERS[neighbours[1]]]
    scores: Scores = -FEWER_COST[neighbours] - DISTANCE_COST * np.abs(np.log(gaps_mm / expected_mm))
    return scores


def _usual_steps(gaps_mm: Scores, scale: float) -> Scores:
    """(gaps, upper level, lower level): to the next level, over some that were not seen, or within one bone."""
    bodies, expected_mm = _bodies_between()
    ratios = gaps_mm[:, None, None] / (scale * np.where(bodies > 0, expected_mm, STEPS_MM))
    downwards = -DISTANCE_COST * np.abs(np.log(ratios))
    downwards -= np.where(bodies > 1, SKIP_COST + FURTHER_SKIP_COST * (bodies - 2), 0.0)
    downwards[(bodies > 1) & (ratios < LEAST_ROOM)] = -IMPOSSIBLE_COST
    within = np.where(ratios < SAME_BONE, -SAME_BONE_COST, -IMPOSSIBLE_COST)
    possible = np.maximum(np.where(bodies > 0, downwards, within), -IMPOSSIBLE_COST)
    return np.where(bodies < 0, -np.inf, possible)


@cache
def _bodies_between() -> tuple[NDArray[np.int64], Scores]:
    """(upper level, lower level): steps from one to the other, and how many millimetres; variants are passed over.

    0 steps are those from a level to itself; fewer go upwards.
    """
    usual = np.array([level not in VARIANTS for level in HEAD_TO_FOOT])
    to_here, to_here_mm = np.cumsum(usual), np.cumsum(usual * STEPS_MM)
    bodies = (to_here - usual)[None] + 1 - to_here[:, None]
    expected_mm = (to_here_mm - usual * STEPS_MM)[None] + STEPS_MM - to_here_mm[:, None]
    upwards = np.tri(len(usual), k=-1, dtype=np.bool_)
    return np.where(upwards, -1, np.where(np.eye(len(usual), dtype=np.bool_), 0, bodies)), expected_mm
