"""What is implausible about the vertebrae that were found; knows the anatomical order, nothing of voxels.

No label is ever changed: what looks wrong is told.
"""

from collections.abc import Sequence
from itertools import pairwise

from openscans.segmentation import course
from openscans.types import ResultWarning, Vertebra, WarningCode

NO_ROOM = 0.75
"""Of the distance that missing levels take, and the step to them: halfway between one step, and two for one level."""

SMALLEST_VERTEBRA_ML = 0.2
"""What TotalSegmentator takes for a blob that is no organ (`remove_small_blobs`, 200 mm³). C1 has some 10 ml."""


def drop_fragments(found: Sequence[Vertebra]) -> tuple[list[Vertebra], list[ResultWarning]]:
    """``found`` without specks that are too small for a vertebra, and a warning that names them."""
    specks = [vertebra.label for vertebra in found if vertebra.volume_ml < SMALLEST_VERTEBRA_ML]
    if not specks:
        return list(found), []
    text = f"Left out as too small for a vertebra (under {SMALLEST_VERTEBRA_ML} ml): {', '.join(specks)}."
    kept = [vertebra for vertebra in found if vertebra.volume_ml >= SMALLEST_VERTEBRA_ML]
    return kept, [ResultWarning(WarningCode.FRAGMENTS_IGNORED, text)]


def plausibility_warnings(vertebrae: Sequence[Vertebra]) -> list[ResultWarning]:
    """What is implausible about vertebrae that run from head to foot. Labels are never changed."""
    if not vertebrae:
        return [ResultWarning(WarningCode.NO_VERTEBRAE, "No vertebra was found in this image.")]
    warnings = _gap_warnings(vertebrae)
    for upper, lower in _out_of_order(vertebrae):
        text = f"{lower} lies on the wrong side of {upper}, seen along the spine. Check the numbering."
        warnings.append(ResultWarning(WarningCode.OUT_OF_ORDER, text))
    cut = [vertebra.label for vertebra in vertebrae if vertebra.truncated]
    if cut:
        warnings.append(
            ResultWarning(
                WarningCode.TOUCHING_BORDER,
                f"Cut by the edge of the image: {', '.join(cut)}. Their centres are those of the part that is seen.",
            )
        )
    return warnings


def repeated_warnings(repeated: Sequence[Vertebra]) -> list[ResultWarning]:
    """A warning for each body beside the vertebra that carries its label; only the larger one is told as that."""
    return [
        ResultWarning(
            WarningCode.LABEL_REPEATED,
            f"Two bodies are called {other.label}: the larger one is told, the other ({other.volume_ml:.0f} ml) lies at"
            f" x {other.center.x:.0f}, y {other.center.y:.0f}, z {other.center.z:.0f}. Check the numbering.",
        )
        for other in repeated
    ]


def _gap_warnings(vertebrae: Sequence[Vertebra]) -> list[ResultWarning]:
    """One that names all levels that were not found between two others, and where there is no room for them."""
    gaps = [
        (upper, lower, between)
        for upper, lower in pairwise(vertebrae)
        if (between := course.levels_between(upper.label, lower.label))
    ]
    if not gaps:
        return []
    missing = ", ".join(level for *_, between in gaps for level in between)
    text = f"Not found between its neighbours: {missing}."
    usual = course.usual_steps(vertebrae)
    narrow = [gap for gap in gaps if usual is not None and _is_narrow(*gap, usual)]
    if narrow:
        pairs = ", ".join(f"{upper.label} and {lower.label}" for upper, lower, _ in narrow)
        text += f" There is no room for it between {pairs}: names were skipped, or the patient lacks one."
    return [ResultWarning(WarningCode.NUMBERING_GAP, f"{text} Check the numbering.")]


def _is_narrow(upper: Vertebra, lower: Vertebra, between: Sequence[str], usual: float) -> bool:
    """Whether the two lie too near for the levels that lack between them."""
    if upper.truncated or lower.truncated:
        return False
    return course.steps(upper, lower) < NO_ROOM * usual * (len(between) + 1)


def _out_of_order(vertebrae: Sequence[Vertebra]) -> list[tuple[str, str]]:
    return [
        (vertebrae[index].label, vertebrae[index + 1].label)
        for index in range(len(vertebrae) - 1)
        if course.goes_back(vertebrae, index)
    ]
