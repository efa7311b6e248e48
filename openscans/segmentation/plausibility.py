"""What is implausible about the vertebrae that were found; knows the anatomical order, nothing of voxels.

No label is ever changed: what looks wrong is told.
"""

from collections.abc import Sequence
from itertools import pairwise

from openscans.types import HEAD_TO_FOOT, ResultWarning, Vertebra, WarningCode

VARIANTS = frozenset({"T13", "L6"})
"""Vertebrae that most people do not have; their absence is no gap in the numbering."""

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


def _missing(labels: Sequence[str]) -> list[str]:
    first, last = HEAD_TO_FOOT.index(labels[0]), HEAD_TO_FOOT.index(labels[-1])
    return [label for label in HEAD_TO_FOOT[first:last] if label not in labels and label not in VARIANTS]


def _out_of_order(vertebrae: Sequence[Vertebra]) -> list[tuple[str, str]]:
    return [(upper.label, lower.label) for upper, lower in pairwise(vertebrae) if lower.center_mm.z > upper.center_mm.z]
