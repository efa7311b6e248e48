"""Whether values can be what a network was trained on: Hounsfield units of a CT, enough grey values of an MR.

Looks at the header's words and at a histogram of some million voxels. It names what looks wrong and corrects nothing:
what was windowed is lost, and who is certain of a lost intercept can write it back.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from openscans.types import ResultWarning, ValueRange, WarningCode
from openscans.volumes.modality import has_air
from openscans.volumes.values import Voxels

AIR_HU = -500.0
"""Half-way between air and water. No part of a vertebra is so thin, not even the lungs' edge beside it."""

MOST_SAMPLES = 2_000_000
"""Voxels that are looked at, evenly over the image; all of it would take a tenth of a second."""

LARGEST_HU = 2**15 - 1
"""Extended scales of metal end at 30,710 HU. What is above was written as negative, and is read as 65,536 more."""

LEAST_LARGE = 0.001
"""The share of voxels beyond that which is no accident."""

NORMALISED = 20.0
"""Values between −1 and 1, 0 and 1, or of so many standard deviations: a CT has some thousand HU."""

FEWEST_HU = 30.0
"""Between the least and the most of a CT: noise alone gives more."""

WINDOWED_BITS = 8
"""Of which no more than 256 values of a window are left."""

LEAST_PADDING = 0.005
"""The share of voxels that are padded: the corners around a round picture are a fifth, a sheared slice's edge less."""

HIGHEST_PADDING = -1000.0

PADDING_BELOW = 500.0
"""How far padding lies below all else. A CT's own values lie close together, from air to tissue."""

LEAST_CUT = 0.002
"""The share of voxels that lie at the uppermost value where a window cut off all above; metal fills less."""

STEP_UP = 20.0
"""How many times as many voxels lie there as at one of the values just below."""

HIGHEST_CUT_HU = 2000.0
"""A window's upper end; scanners' own ends (3,071 and above) cut nothing but metal."""

SHIFT = 1024.0
"""What a lost rescale intercept leaves added to a CT's values."""

AIR_FROM_ZERO = 200.0
"""Air of a shifted CT: −1,024 to −824 HU before."""

LEAST_AIR = 0.05
"""The share of voxels that a shifted CT shows of air: lungs, or what is around the body."""

SHIFTED_TISSUE = (990.0, 1130.0)
"""Where soft tissue (−30 to 100 HU) lies once 1,024 were added; the peak of most CTs beside that of air."""

FEWEST_GREYS = 50
"""Of an MR. It has some hundred or thousand; a picture of it has 256 at the most, and a label map some ten."""

UNIT = re.compile(r"[A-Z][A-Z_]{0,15}")
"""RescaleType's defined terms (PS3.3 C.11.1.1.2) look so; nothing else is echoed."""

EXPORT_AGAIN = "Labels may be wrong or lacking; send the original series."


@dataclass(frozen=True)
class Told:
    """What the headers say of the values: bits that are used of each, whether they are rescaled, and into which unit.

    Nothing is known where the format has no such words.
    """

    bits_stored: int | None = None
    rescaled: bool = True
    unit: str = ""


NOTHING_TOLD = Told()


@dataclass(frozen=True)
class _Sample:
    """``values``: some of an image's, flat. ``low`` and ``high``: the least and most of them all."""

    values: Voxels
    low: float
    high: float
    whole: bool

    def share(self, low: float, high: float) -> float:
        """Of the values that lie from ``low`` to ``high``, both included."""
        return float(np.count_nonzero((self.values >= low) & (self.values <= high)) / self.values.size)


@dataclass(frozen=True)
class _Doubt:
    """The sentence that says why values are no Hounsfield units, and `Intensities.air_below` of such values."""

    sentence: str
    air_below: float = AIR_HU


@dataclass(frozen=True)
class Intensities:
    """What an image's values are, and a warning where they are not what they should be.

    ``air_below``: nothing up to this value is a vertebra's, in the image's values as they are; `AIR_HU` of those that
    are Hounsfield units, and where nobody can tell.
    """

    values: ValueRange
    warnings: tuple[ResultWarning, ...] = ()
    air_below: float = AIR_HU


def look_at_intensities(voxels: Voxels, told: Told, *, is_mr: bool) -> Intensities:
    """What ``voxels`` (z, y, x) are; of what speaks against them, the first reason that applies."""
    sample = _sample(voxels)
    doubt = _too_few_greys(sample) if is_mr else _why_not_hu(sample, told)
    low, high = float(voxels.min()), float(voxels.max())
    values = ValueRange(low, high, "unknown" if is_mr or doubt else "HU")
    if doubt is None:
        return Intensities(values)
    warning = ResultWarning(WarningCode.VALUES_NOT_HU, f"{doubt.sentence} {EXPORT_AGAIN}")
    return Intensities(values, (warning,), doubt.air_below)


def _sample(voxels: Voxels) -> _Sample:
    step = max(1, round((voxels.size / MOST_SAMPLES) ** (1 / 3)))
    values = voxels[::step, ::step, ::step].ravel()
    whole = values.dtype.kind in "iu" or bool(np.array_equal(values, np.rint(values)))
    return _without_padding(_Sample(values, float(voxels.min()), float(voxels.max()), whole))


def _without_padding(sample: _Sample) -> _Sample:
    """``sample`` without what was written around the picture: one value far below all others, over a part of it."""
    if sample.low > HIGHEST_PADDING:
        return sample
    inside = sample.values[sample.values > sample.low]
    if inside.size == 0 or inside.size > (1 - LEAST_PADDING) * sample.values.size:
        return sample
    lowest = float(inside.min())
    return sample if lowest - sample.low < PADDING_BELOW else replace(sample, values=inside, low=lowest)


def _too_few_greys(sample: _Sample) -> _Doubt | None:
    greys = len(np.unique(sample.values))
    if greys >= FEWEST_GREYS:
        return None
    return _Doubt(
        f"The image has only {greys} different value{'s' * (greys != 1)}, as a picture or a label map has, and no MR."
    )


def _why_not_hu(sample: _Sample, told: Told) -> _Doubt | None:
    """What says that the values are no Hounsfield units; None where they may be."""
    if told.bits_stored is not None and told.bits_stored <= WINDOWED_BITS:
        return _Doubt(
            f"The image has {told.bits_stored} bits for each value, as a windowed picture has, and no Hounsfield"
            " units.",
            _end_of_window(sample),
        )
    return (
        _by_range(sample)
        or _by_shift(sample)
        or _by_window(sample)
        # Air at its place outweighs what a header lacks.
        or (None if has_air(sample.values) else _by_header(told, sample))
    )


def _by_range(sample: _Sample) -> _Doubt | None:
    low, high = sample.low, sample.high
    if high > LARGEST_HU and sample.share(LARGEST_HU, high) >= LEAST_LARGE:
        return _Doubt(
            f"Values reach {high:.0f}, as where the sign of negative values was lost, and no Hounsfield units do."
        )
    if not sample.whole and max(abs(low), abs(high)) <= NORMALISED:
        return _Doubt(f"Values lie between {low:.2g} and {high:.2g}, as normalised ones do, and no Hounsfield units.")
    if 0 < high - low < FEWEST_HU:
        return _Doubt(
            f"Values lie between {low:.0f} and {high:.0f}, closer together than the Hounsfield units of any CT."
        )
    return None


def _by_window(sample: _Sample) -> _Doubt | None:
    low, high = sample.low, sample.high
    if sample.whole and low >= 0 and high == 255:
        text = "Values look windowed to 0…255; Hounsfield units cannot be told from them."
        return _Doubt(text, _end_of_window(sample))
    if low < high < HIGHEST_CUT_HU and _is_cut_at(high, sample):
        text = f"Values look windowed to {low:.0f}…{high:.0f}: bone beyond that was cut off."
        return _Doubt(text, _end_of_window(sample))
    return None


def _end_of_window(sample: _Sample) -> float:
    """Beside what a window cut off below, which is air among others; bone is in no window's lower end."""
    # Resampling may leave one more than the value that all around have.
    return max(AIR_HU, sample.low + 1)


def _is_cut_at(high: float, sample: _Sample) -> bool:
    """Whether far more voxels lie at the uppermost value than at each of those just below."""
    width = max(1.0, 0.05 * (high - sample.low))
    below = sample.share(high - width, high) - sample.share(high, high)
    at_the_end = sample.share(high, high)
    return at_the_end >= LEAST_CUT and at_the_end > STEP_UP * below / (width if sample.whole else 1.0)


def _by_shift(sample: _Sample) -> _Doubt | None:
    if sample.low < 0 or sample.share(0, AIR_FROM_ZERO) < LEAST_AIR:
        return None
    counts, edges = np.histogram(sample.values, bins=64, range=(AIR_FROM_ZERO, 1800))
    peak = float(edges[int(counts.argmax())] + edges[1] - edges[0]) if counts.any() else 0.0
    if not SHIFTED_TISSUE[0] <= peak <= SHIFTED_TISSUE[1]:
        return None
    text = "Values look shifted by +1024 (air lies near 0, soft tissue near 1,050): was the rescale intercept lost?"
    return _Doubt(text, AIR_HU + SHIFT)


def _by_header(told: Told, sample: _Sample) -> _Doubt | None:
    if told.unit not in ("", "HU"):
        unit = told.unit if UNIT.fullmatch(told.unit) else "another unit"
        unit = "unspecified (US)" if unit == "US" else unit
        return _Doubt(f"The header calls the values {unit}, and no Hounsfield units.")
    if not told.rescaled and sample.low >= 0:
        return _Doubt("The header does not tell how values are rescaled to Hounsfield units, and none is negative.")
    return None
