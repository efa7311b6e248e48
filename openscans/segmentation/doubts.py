"""What speaks against a row of levels as a whole: its distances, its count, its ends, its direction and its sizes.

Knows measured vertebrae and the anatomical order. No label is ever changed: what looks wrong is told. What none of this
finds: a run of levels that is shifted together up to the end of the field of view, where nothing but the name says that
the anchor is one; a left side that is called right.
"""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import chain, pairwise

import numpy as np

from openscans.segmentation import course, sacrum
from openscans.segmentation.course import Vector
from openscans.segmentation.mixed import mixed_warnings, wavering_warnings
from openscans.segmentation.vertebrae import LEVEL_MM, LabelMap, Measured
from openscans.types import HEAD_TO_FOOT, ResultWarning, Vertebra, WarningCode
from openscans.volumes import Affine

MOST_STEP, LEAST_STEP = 1.6, 0.55
"""From one level to the next, in steps of its neighbours. Healthy ones differ by a tenth or two, a vertebra that was
passed over makes 2, one that was divided 0.5."""

STEPS_AROUND = 2
"""On either side, whose median is what a step is measured by."""

ANCHORS = ("C1", "C2", "S1")
"""Levels that look like no other. One in view is enough: from it all others are counted."""

BETWEEN_C2_AND_S1 = 22
"""C3 … L5. One in ten people has one more or less, or a vertebra that is half a sacral one."""

MOST_BELOW_L5 = 1.5
"""L5's distance from S1, or the sacrum, in distances between L4 and L5."""

MOST_BELOW_L4 = 1.5
"""Steps from L4 to S1 between which there is no L5 that was passed over."""

MOST_OFF = 70.0
"""Degrees. Strong bends of tilted patients turn a part of a spine by 60; a wrong header turns it by 90 or 180."""

FEWEST_FOR_A_DIRECTION = 3

LEAST_VOLUME, MOST_VOLUME = 0.55, 1.8
"""Of the mean of both neighbours. From T1 to L5 volumes grow by a tenth a level; one that is fused, divided, collapsed
or full of cement is beyond these."""

LARGE_AS_TWO = 1.45
"""Of the same, where the level beside it was not found: less than double where its neighbours are larger than it."""

DOUBLE = "Two bodies that touch may carry one label, since it is large and a level beside it was not found: {}."
ODD = "May be collapsed, fused, divided or filled, or carry another's label: {}."

SIZED = frozenset(HEAD_TO_FOOT[HEAD_TO_FOOT.index("C3") : HEAD_TO_FOOT.index("S1")])
"""Whose volumes are compared: C1 and C2 have forms of their own, and the sacrum is cut at will."""


def find_doubts(found: Measured, label_map: LabelMap, affine_lps: Affine) -> list[ResultWarning]:
    """All doubts about what was ``found`` in ``label_map`` over the volume of ``affine_lps``."""
    row = found.vertebrae
    if not row:
        return []
    places = sacrum.sacrum_places(label_map, affine_lps)
    return [
        *mixed_warnings(row, label_map, affine_lps),
        *wavering_warnings(row, label_map),
        *spacing_warnings(row),
        *numbering_warnings(row, sacrum_in_view=places is not None),
        *count_warnings([*row, *found.repeated], sacrum_in_view=places is not None),
        *lumbosacral_warnings(row, places),
        *direction_warnings(row),
        *volume_warnings(row),
    ]


def spacing_warnings(row: Sequence[Vertebra]) -> list[ResultWarning]:
    """Of neighbours that lie too far from each other for a step, or too near. What the image cuts is passed over."""
    steps = [_step(upper, lower) for upper, lower in pairwise(row)]
    warnings = []
    for index, step in enumerate(steps):
        around = [*steps[max(index - STEPS_AROUND, 0) : index], *steps[index + 1 : index + 1 + STEPS_AROUND]]
        known = [other for other in around if other is not None]
        if step is None or not known:
            continue
        ratio = step / float(np.median(known))
        # Of two steps that differ nobody knows which is the wrong one; a vertebra that was passed over is the usual.
        if ratio > MOST_STEP or (ratio < LEAST_STEP and len(known) > 1):
            warnings.append(_spacing_warning(row[index], row[index + 1], ratio))
    return warnings


def _step(upper: Vertebra, lower: Vertebra) -> float | None:
    if upper.truncated or lower.truncated or not course.are_neighbours(upper.label, lower.label):
        return None
    return course.steps(upper, lower)


def _spacing_warning(upper: Vertebra, lower: Vertebra, ratio: float) -> ResultWarning:
    far = f"{float(np.linalg.norm(course.way_mm(upper, lower))):.0f} mm apart, {ratio:.1f} times what is usual here"
    why = "a vertebra between them may have been passed over" if ratio > 1 else "they may be one vertebra"
    return ResultWarning(
        WarningCode.SPACING_JUMP, f"{upper.label} and {lower.label} lie {far}: {why}. Check the numbering."
    )


def numbering_warnings(row: Sequence[Vertebra], *, sacrum_in_view: bool) -> list[ResultWarning]:
    """Where nothing is in view from which levels could be counted."""
    if sacrum_in_view or any(vertebra.label in ANCHORS for vertebra in row):
        return []
    text = "Neither C1 or C2 nor the sacrum is in view: levels are guessed from what is seen"
    return [ResultWarning(WarningCode.NUMBERING_UNCERTAIN, f"{text}, and all may be wrong by one (±1).")]


def count_warnings(bodies: Sequence[Vertebra], *, sacrum_in_view: bool) -> list[ResultWarning]:
    """Of another number of ``bodies`` between C2 and the sacrum than is usual, those that share a label counted too."""
    labels = [vertebra.label for vertebra in bodies]
    if "C2" not in labels or not (sacrum_in_view or "S1" in labels):
        return []
    first, last = HEAD_TO_FOOT.index("C2"), HEAD_TO_FOOT.index("S1")
    count = sum(first < HEAD_TO_FOOT.index(label) < last for label in labels)
    if count == BETWEEN_C2_AND_S1:
        return []
    text = f"{count} vertebrae lie between C2 and the sacrum, where {BETWEEN_C2_AND_S1} are usual"
    if abs(count - BETWEEN_C2_AND_S1) > 1:
        text += ": some were not found or are divided, or several levels are wrong."
        return [ResultWarning(WarningCode.COUNT_UNUSUAL, text)]
    return [_count_warning(text)]


def lumbosacral_warnings(row: Sequence[Vertebra], places: sacrum.Places | None) -> list[ResultWarning]:
    """Where L4 lies on the sacrum, or L5 too far above it. ``places`` are the sacrum's."""
    by_label = {vertebra.label: vertebra for vertebra in row if not vertebra.truncated}
    l4, l5, s1 = (by_label.get(label) for label in ("L4", "L5", "S1"))
    if l4 is None or "L6" in by_label:
        return []
    if s1 is None and any(vertebra.label == "S1" for vertebra in row):
        # Where it is cut nobody knows its middle, and what is called sacrum begins below it.
        return []
    if l5 is None and not any(vertebra.label == "L5" for vertebra in row):
        step = _steps_to_sacrum(l4, s1, places)
        usual = course.usual_steps(row) or 1.0
        if step is not None and step < MOST_BELOW_L4 * usual:
            return [_count_warning("S1 or the sacrum lies directly below L4")]
    if l5 is not None:
        step, above = _steps_to_sacrum(l5, s1, places), course.steps(l4, l5)
        if step is not None and step > MOST_BELOW_L5 * above:
            return [_count_warning(f"L5 lies {step / above:.1f} times as far above the sacrum as L4 above L5")]
    return []


def _steps_to_sacrum(vertebra: Vertebra, s1: Vertebra | None, places: sacrum.Places | None) -> float | None:
    """To the body of S1; where the sacrum counts it in, half a step more than to its nearest place."""
    if s1 is not None:
        return course.steps(vertebra, s1)
    if places is None:
        return None
    return sacrum.from_body_mm(vertebra, places) / LEVEL_MM["L"] + 0.5


def _count_warning(text: str) -> ResultWarning:
    return ResultWarning(
        WarningCode.COUNT_UNUSUAL, f"{text}: one vertebra more or less than usual, or a shift of the numbering above."
    )


def direction_warnings(row: Sequence[Vertebra]) -> list[ResultWarning]:
    """Where the spine does not run from head to foot, or its processes do not lie behind it, as the header has it."""
    if len(row) < FEWEST_FOR_A_DIRECTION:
        return []
    warnings = []
    down = _angle(_direction(row), course.TO_FOOT)
    if down > MOST_OFF:
        warnings.append(f"From head to foot the spine runs {down:.0f}° away from the patient's axis")
    back = _back(row)
    behind = None if back is None else _angle(back, np.array([0.0, 1.0, 0.0]))
    if behind is not None and behind > MOST_OFF:
        warnings.append(f"The spinous processes lie {behind:.0f}° away from behind the vertebral bodies")
    text = "The header may place the image wrongly; levels and sides may be wrong."
    return [ResultWarning(WarningCode.ORIENTATION_DOUBTFUL, f"{reason}. {text}") for reason in warnings]


def _direction(row: Sequence[Vertebra]) -> Vector:
    """The straight line that fits the row best, towards the foot, no level counting more than another."""
    centers = np.array([astuple(vertebra.center_mm) for vertebra in row])
    places = np.arange(len(row)) - (len(row) - 1) / 2
    direction: Vector = places @ centers
    return direction


def _back(row: Sequence[Vertebra]) -> Vector | None:
    """From the bodies to the centres of mass, which lie behind them, in the transverse plane; of at least three."""
    ways = [
        np.subtract(astuple(vertebra.center_mm), astuple(vertebra.body.center_mm))
        for vertebra in row
        if vertebra.body is not None and not vertebra.truncated
    ]
    if len(ways) < FEWEST_FOR_A_DIRECTION:
        return None
    back: Vector = np.mean(ways, axis=0) * (1.0, 1.0, 0.0)
    return back


def _angle(one: Vector, other: Vector) -> float:
    """Between the two, in degrees."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(one @ other / lengths, -1, 1)))) if lengths else 0.0


def volume_warnings(row: Sequence[Vertebra]) -> list[ResultWarning]:
    """Of vertebrae that are much smaller or larger than the mean of their neighbours; none that the image cuts."""
    whole = [vertebra for vertebra in row if vertebra.label in SIZED and not vertebra.truncated]
    found = {vertebra.label for vertebra in row}
    odd, double = [], []
    for above, one, below in zip(whole, whole[1:], whole[2:], strict=False):
        share = 2 * one.volume_ml / (above.volume_ml + below.volume_ml)
        told = f"{one.label} ({one.volume_ml:.0f} ml, {share:.1f} of its neighbours)"
        if share > LARGE_AS_TWO and _lacks_one(found, above, one, below):
            double.append(told)
        elif not LEAST_VOLUME <= share <= MOST_VOLUME:
            odd.append(told)
    return [
        *([ResultWarning(WarningCode.LABEL_REPEATED, DOUBLE.format(", ".join(double)))] if double else []),
        *([ResultWarning(WarningCode.VOLUME_UNUSUAL, ODD.format(", ".join(odd)))] if odd else []),
    ]


def _lacks_one(found: set[str], *row: Vertebra) -> bool:
    """Whether a level between those of ``row`` is not ``found``."""
    between = (course.levels_between(upper.label, lower.label) for upper, lower in pairwise(row))
    return not found.issuperset(chain.from_iterable(between))
