"""Stacks whose slices are sheared, lost, uneven, twice there, or no stack at all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from openscans import errors
from phantom.files import DicomStyle
from tests import bad_files
from tests.bad_files import edit
from tests.corpus.cases import Case, Read
from tests.corpus.scene import Affine, affine_of, at_heights, edited, series


def tilted(angle_deg: float, *, about: str = "x") -> Affine:
    """The scene's grid with its slices turned against the table's way: about x as gantries tilt, or about y."""
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    if about == "x":
        return affine_of(((1, 0, 0), (0, cosine, -sine), (0, 0, 1)))
    return affine_of(((cosine, 0, sine), (0, 1, 0), (0, 0, 1)))


def _at_tilt(affine_lps: Affine, style: DicomStyle = bad_files.PLAIN_STYLE) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        series(folder, affine_lps, style)
        return folder

    return make


def _at(heights_mm: list[float], affine_lps: Affine | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        at_heights(folder, heights_mm, affine_lps)
        return folder

    return make


def _upright(angle_deg: float, warnings: tuple[str, ...] = ("gantry_tilt_corrected",)) -> Read:
    """Slices keep their size; their distance is measured along the normal."""
    return Read(spacing_mm=(0.7, 0.8, round(2.5 * float(np.cos(np.radians(angle_deg))), 4)), warnings=warnings)


def tilted_with_lost_slices(folder: Path) -> Path:
    for file in series(folder, tilted(15))[4:6]:
        file.unlink()
    return folder


def tilt_in_the_header_only(folder: Path) -> Path:
    """A detector that was tilted while the slices were reconstructed upright."""
    return edited(folder, GantryDetectorTilt=12.5)


def one_lost_slice(folder: Path) -> Path:
    series(folder)[6].unlink()
    return folder


def three_lost_slices(folder: Path) -> Path:
    for file in series(folder)[2:5]:
        file.unlink()
    return folder


def four_lost_slices(folder: Path) -> Path:
    for file in series(folder)[4:8]:
        file.unlink()
    return folder


def thick_overlapping_slices(folder: Path) -> Path:
    return edited(folder, SliceThickness=5, SpacingBetweenSlices=5)


def thin_slices_apart(folder: Path) -> Path:
    return edited(folder, SliceThickness=1)


def long_pixels(folder: Path) -> Path:
    series(folder, affine_of(spacing_mm=(0.5, 1.25, 2.5)))
    return folder


def rounded_positions(folder: Path) -> Path:
    """To a hundredth of a millimetre, at distances of a third."""
    step_mm = 1.0 / 3
    affine = affine_of(spacing_mm=(0.7, 0.8, step_mm))
    for z, file in enumerate(series(folder, affine)):
        edit(file, ImagePositionPatient=[*affine[:2, 3].round(4), round(affine[2, 3] + z * step_mm, 2)])
    return folder


def metres_apart(folder: Path) -> Path:
    series(folder, affine_of(spacing_mm=(0.7, 0.8, 300.0)))
    return folder


def pixels_in_micrometres(folder: Path) -> Path:
    series(folder, affine_of(spacing_mm=(700.0, 800.0, 2.5)))
    return folder


def pixels_of_a_millionth(folder: Path) -> Path:
    return edited(folder, PixelSpacing=[1e-6, 1e-6])


def tilted_line(folder: Path) -> Path:
    """Narrow slices, each almost its own thickness beside the last."""
    series(folder, tilted(40), shape=(60, 4, 4))
    return folder


def bolus_tracking(folder: Path) -> Path:
    return bad_files.one_place(folder)


CREEPING_MM = [0.0, *np.cumsum(np.repeat([2.0, 2.035], 30)).round(3).tolist()]
"""No gap differs much from the next, but the middle slices lie far from where even spacing puts them."""

DENSER_BELOW_MM = [0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 17.5, 22.5, 27.5, 32.5, 37.5]
CHANGING_MM = [0.0, 1.0, 2.1, 3.4, 5.0, 6.9, 9.0, 11.5, 14.0, 17.0, 20.5, 24.0]

TILT = ("gantry_tilt_corrected",)
LOST = ("missing_slices",)
UNEVEN = ("uneven_spacing",)


def _slices(count: int, step_mm: float, warnings: tuple[str, ...]) -> Read:
    return Read(size=(16, 14, count), spacing_mm=(0.7, 0.8, step_mm), warnings=warnings)


CASES = [
    Case("gantry tilt of 10°", "Sheared slices are set upright.", _at_tilt(tilted(10)), _upright(10)),
    Case("gantry tilt of −25°", "To the other side.", _at_tilt(tilted(-25)), _upright(25)),
    Case("gantry tilt of 0.5°", "The least that scanners set.", _at_tilt(tilted(0.5)), _upright(0.5)),
    Case("sheared sideways by 8°", "About the back-to-front axis.", _at_tilt(tilted(8, about="y")), _upright(8)),
    Case("tilted MR", "Sheared stacks of MR, too.", _at_tilt(tilted(10), DicomStyle(modality="MR")), _upright(10)),
    Case(
        "tilted, with lost slices",
        "Two slices of a tilted stack are missing.",
        tilted_with_lost_slices,
        Read((16, 14, 10), (0.7, 0.8, 2.4148), (*TILT, *LOST)),
    ),
    Case("tilt in the header only", "GantryDetectorTilt is not believed; positions are.", tilt_in_the_header_only),
    Case(
        "sheared by 60°",
        "Beyond any gantry.",
        bad_files.sheared_beyond_any_gantry,
        errors.InconsistentGeometry,
    ),
    Case("one lost slice", "A gap of 5 mm is filled.", one_lost_slice, _slices(11, 2.5, LOST)),
    Case(
        "three lost slices",
        "A gap of 10 mm, the widest that is filled.",
        three_lost_slices,
        _slices(9, 2.5, ("few_slices", *LOST)),
    ),
    Case("four lost slices", "A gap of 12.5 mm could hide a vertebra.", four_lost_slices, errors.InconsistentGeometry),
    Case("denser below", "Distances of 2.5 mm, then 5 mm.", _at(DENSER_BELOW_MM), _slices(11, 3.75, UNEVEN)),
    Case("distances that change", "From 1 mm to 3.5 mm.", _at(CHANGING_MM), _slices(12, 2.1, UNEVEN)),
    Case(
        "distances that creep",
        "2 mm, then 2.035 mm: the middle is a slice off.",
        _at(CREEPING_MM),
        _slices(61, 2.0175, UNEVEN),
    ),
    Case("overlapping slices", "5 mm thick, 2.5 mm apart; SpacingBetweenSlices lies.", thick_overlapping_slices),
    Case("thin slices apart", "1 mm thick, 2.5 mm apart.", thin_slices_apart),
    Case("non-square pixels", "0.5 × 1.25 mm.", long_pixels, Read(spacing_mm=(0.5, 1.25, 2.5))),
    Case(
        "rounded positions",
        "A third of a millimetre, to two digits.",
        rounded_positions,
        Read(spacing_mm=(0.7, 0.8, 0.3336)),
    ),
    Case("slices 300 mm apart", "3.6 m in all.", metres_apart, errors.InconsistentGeometry),
    Case("pixels in micrometres", "11 m across.", pixels_in_micrometres, errors.InconsistentGeometry),
    Case("pixels of a millionth", "1e-6 mm across.", pixels_of_a_millionth, errors.InconsistentGeometry),
    Case("a tilted line", "60 slices of 4 × 4 pixels, at 40°.", tilted_line, errors.InconsistentGeometry),
    Case("bolus tracking", "One slice again and again.", bolus_tracking, errors.TooFewSlices),
    Case("two slices", "No volume.", bad_files.two_slices, errors.TooFewSlices),
    Case("zigzag", "Every other slice a pixel to the side.", bad_files.displaced_slices, errors.InconsistentGeometry),
    Case("two orientations", "In one series.", bad_files.mixed_orientations, errors.InconsistentGeometry),
    Case("one slice askew", "Turned by 5°.", bad_files.one_slice_askew, errors.InconsistentGeometry),
    Case("two sizes", "16 and 24 columns.", bad_files.mixed_sizes, errors.InconsistentGeometry),
    Case("one zoomed slice", "Other pixel spacing.", bad_files.one_zoomed_slice, errors.InconsistentGeometry),
    Case("no positions", "Taken away.", bad_files.headers_without_positions, errors.InconsistentGeometry),
]
