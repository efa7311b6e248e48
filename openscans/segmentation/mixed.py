"""Bodies that carry two labels: told from the faces at which two labels touch, and from what a network wavered between.

Knows label maps and the anatomical order. No label is ever changed: what looks wrong is told.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import grids
from openscans.segmentation.course import levels_between
from openscans.segmentation.vertebrae import LEVEL_MM, LabelMap
from openscans.types import HEAD_TO_FOOT, ResultWarning, Vertebra, WarningCode
from openscans.volumes import Affine

MOST_APART_MM2 = 60.0
"""At which labels may touch that are no neighbours. They lie a vertebra's height apart, so any contact is one within a
body; a lone sample of 3 mm, which moves nothing, has 54."""

MOST_OF_SECTION = 0.4
"""At which neighbours may touch, as a share of the smaller one's section. Facet joints take a seventh of it, in
TotalSegmentator's own masks at 3 mm too; where a body is divided between two labels they touch at more than half."""

SECTION_OF_LEVEL = 0.85
"""A vertebra's height as a share of the distance between levels, the rest being disc; its section is volume by that."""

LEAST_SURE, LEAST_SECOND = 0.6, 0.25
"""Mean probabilities of a vertebra's own label, below which it is not sure, and of another, above which that is the
reason: at the edges of bone some goes to the background, in a clean spine next to nothing to another level."""

LABELS = 256


def mixed_warnings(found: Sequence[Vertebra], label_map: LabelMap, affine_lps: Affine) -> list[ResultWarning]:
    """A warning that names every two labels that share a body, where there are any."""
    sample_mm = grids.sample_spacing_mm(label_map.grid, affine_lps)
    areas = contact_areas_mm2(label_map.labels, label_map.names, sample_mm)
    pairs = [f"{upper} and {lower} ({area:.0f} mm²)" for upper, lower, area in _too_large(areas, found)]
    if not pairs:
        return []
    text = f"One body may carry two labels, or two are fused, since labels touch widely: {', '.join(pairs)}."
    return [ResultWarning(WarningCode.LABELS_MIXED, f"{text} Check these levels.")]


def wavering_warnings(found: Sequence[Vertebra], label_map: LabelMap) -> list[ResultWarning]:
    """A warning that names every vertebra of which the network could as well have called much by another name.

    None where the label map has no runners-up.
    """
    others = mean_seconds(label_map)
    told = [
        f"{one.label} ({one.confidence:.0%}) may be {other} ({share:.0%})"
        for one in found
        if one.confidence < LEAST_SURE and one.label in others
        for other, share in [others[one.label]]
        if share > LEAST_SECOND
    ]
    if not told:
        return []
    return [ResultWarning(WarningCode.LABELS_MIXED, f"Two labels are nearly as probable: {', '.join(told)}.")]


def mean_seconds(label_map: LabelMap) -> dict[str, tuple[str, float]]:
    """Of each label the other level to which the network gave most, and the mean probability of that."""
    runners_up = label_map.runners_up
    if runners_up is None:
        return {}
    own = label_map.labels[label_map.labels != 0].astype(np.intp)
    sums = np.zeros((LABELS, LABELS))
    for labels, probabilities in zip(runners_up.labels, runners_up.probabilities, strict=True):
        sums += np.bincount(own * LABELS + labels, probabilities, LABELS * LABELS).reshape(LABELS, LABELS)
    counts, numbers = np.bincount(own, minlength=LABELS), sorted(label_map.names)
    seconds = {}
    for number in numbers:
        if counts[number]:
            best = numbers[int(sums[number, numbers].argmax())]
            seconds[label_map.names[number]] = label_map.names[best], float(sums[number, best] / counts[number])
    return seconds


def _too_large(
    areas_mm2: Mapping[tuple[str, str], float], found: Sequence[Vertebra]
) -> Iterator[tuple[str, str, float]]:
    """The pairs, upper level first, that touch at more than they may; of what was found alone."""
    by_label = {vertebra.label: vertebra for vertebra in found}
    for pair, area_mm2 in areas_mm2.items():
        upper, lower = sorted(pair, key=HEAD_TO_FOOT.index)
        if upper not in by_label or lower not in by_label:
            continue
        if any(level in by_label for level in levels_between(upper, lower)):
            most_mm2 = MOST_APART_MM2
        else:
            most_mm2 = MOST_OF_SECTION * _section_mm2(by_label[upper], by_label[lower])
        if area_mm2 > most_mm2:
            yield upper, lower, area_mm2


def _section_mm2(upper: Vertebra, lower: Vertebra) -> float:
    """Of the smaller one; of one that the image cuts only where both are cut, and then the larger one's."""
    whole = [_mean_section_mm2(one) for one in (upper, lower) if not one.truncated]
    return min(whole) if whole else max(_mean_section_mm2(upper), _mean_section_mm2(lower))


def _mean_section_mm2(vertebra: Vertebra) -> float:
    return 1000 * vertebra.volume_ml / (SECTION_OF_LEVEL * LEVEL_MM[vertebra.label[0]])


def contact_areas_mm2(
    labels: NDArray[np.uint8], names: Mapping[int, str], sample_mm: Sequence[float]
) -> dict[tuple[str, str], float]:
    """The area of the faces that samples of two named labels of ``labels`` (z, y, x) share, by the names of both.

    ``sample_mm``: between samples along x, y, z. Whole faces are counted, so a slanting contact is told up to 1.7 times
    too large.
    """
    named = np.zeros(LABELS, np.bool_)
    named[list(names)] = True
    x_mm, y_mm, z_mm = sample_mm
    areas = np.zeros(LABELS * LABELS)
    for axis, face_mm2 in enumerate((x_mm * y_mm, x_mm * z_mm, y_mm * z_mm)):
        along = np.moveaxis(labels, axis, 0)
        before, after = along[:-1], along[1:]
        touching = (before != after) & (before != 0) & (after != 0)
        one, other = before[touching].astype(np.intp), after[touching].astype(np.intp)
        both = named[one] & named[other]
        pairs = np.minimum(one, other)[both] * LABELS + np.maximum(one, other)[both]
        areas += face_mm2 * np.bincount(pairs, minlength=LABELS * LABELS)
    return {
        (names[int(pair) // LABELS], names[int(pair) % LABELS]): float(areas[pair]) for pair in np.flatnonzero(areas)
    }
