"""Every doubt from both sides: it is told of spines that have it, and of no clean one of any shape."""

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from totalsegmentator.map_to_binary import class_map

from openscans.segmentation import doubts, grids, mixed, plausibility, vertebrae
from openscans.types import Body, Point, ResultWarning, Vertebra, Voxel, WarningCode
from phantom.course import Shape
from phantom.probabilities import (
    ELEVEN_THORACIC,
    FOUR_LUMBAR,
    NUMBERS,
    THIRTEEN_THORACIC,
    Settings,
    SyntheticSpine,
    draw,
)
from phantom.spine import LEVELS
from tests.sample_vertebra import SAMPLE
from tests.shared_data import NOT_HERE, SHARED_DATA

SHAPES: tuple[Shape, ...] = get_args(Shape)
RULES = (
    WarningCode.LABEL_REPEATED,
    WarningCode.LABELS_MIXED,
    WarningCode.SPACING_JUMP,
    WarningCode.NUMBERING_UNCERTAIN,
    WarningCode.COUNT_UNUSUAL,
    WarningCode.ORIENTATION_DOUBTFUL,
    WarningCode.VOLUME_UNUSUAL,
    WarningCode.NUMBERING_GAP,
    WarningCode.OUT_OF_ORDER,
)


def told(spine: SyntheticSpine, *, sacrum_label: int | None = NUMBERS["sacrum"]) -> list[ResultWarning]:
    """What a detection would tell of a label map, but what the field of view cuts."""
    label_map = replace(spine.label_map, sacrum=sacrum_label)
    measured = vertebrae.measure_all(label_map, spine.volume)
    return [
        *plausibility.repeated_warnings(measured.repeated),
        *doubts.find_doubts(measured, label_map, spine.affine_lps),
        *plausibility.plausibility_warnings(measured.vertebrae),
    ]


def message(warnings: list[ResultWarning], code: str) -> str:
    """Of the one warning with this code."""
    [found] = [warning.message for warning in warnings if warning.code == code]
    return found


@cache
def clean_codes(shape: Shape) -> set[str]:
    """Of eight spines together."""
    spines = [draw(Settings(seed, shape=shape)) for seed in range(8)]
    return {warning.code for spine in spines for warning in told(spine)}


@pytest.mark.parametrize(("shape", "code"), [*product(SHAPES, RULES)])
def test_no_rule_speaks_of_eight_clean_spines(shape: Shape, code: WarningCode) -> None:
    assert code not in clean_codes(shape)


def placed(label: str, z_mm: float, **changes: object) -> Vertebra:
    center = Point(0, 0, z_mm)
    body = Body(Point(0, 0, 0), Point(0, -8, z_mm))
    return replace(SAMPLE, label=label, center_mm=center, body=body, **changes)


def evenly(*labels: str, **changes: object) -> list[Vertebra]:
    """From head to foot, at the distances that are usual."""
    row, z_mm = [], 0.0
    for label in labels:
        row.append(placed(label, z_mm, **changes))
        z_mm -= vertebrae.LEVEL_MM[label[0]]
    return row


def moved(row: list[Vertebra], label: str, up_mm: float) -> list[Vertebra]:
    """The row with this vertebra, and all below it, farther up."""
    first = [vertebra.label for vertebra in row].index(label)
    return [
        placed(one.label, one.center_mm.z + (up_mm if index >= first else 0), truncated=one.truncated)
        for index, one in enumerate(row)
    ]


# R2


def test_a_body_of_which_half_carries_the_next_label_is_mixed() -> None:
    warnings = told(draw(Settings(1, levels=LEVELS[8:18], mixed="T6")))
    assert "T6 and T7" in message(warnings, "labels_mixed")


def test_a_corner_with_the_label_of_a_far_level_is_mixed() -> None:
    spine = draw(Settings(1, levels=LEVELS[8:18]))
    z, y, x = np.nonzero(spine.labels == NUMBERS["T6"])
    corner = (z >= np.quantile(z, 0.7)) & (x >= np.quantile(x, 0.7))
    spine.labels[z[corner], y[corner], x[corner]] = NUMBERS["T9"]
    assert "T6 and T9" in message(told(spine), "labels_mixed")


def test_the_levels_on_either_side_of_a_rare_one_may_touch_as_neighbours_do() -> None:
    t12, l1 = vertebrae_with_volume("T12", "L1")
    found = mixed._too_large({("L1", "T12"): 300.0}, [t12, l1])
    assert list(found) == []


def vertebrae_with_volume(*labels: str) -> list[Vertebra]:
    return [placed(label, -30.0 * index, volume_ml=30.0) for index, label in enumerate(labels)]


def test_a_vertebra_of_which_only_a_part_is_in_view_has_no_section_to_compare_with() -> None:
    whole, cut = placed("T12", 0, volume_ml=40.0), placed("T11", 24, volume_ml=2.0, truncated=True)
    assert list(mixed._too_large({("T12", "T11"): 200.0}, [cut, whole])) == []


def test_contact_areas_are_those_of_every_pair_of_faces() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (7, 6, 5)).astype(np.uint8)
    names = {1: "L5", 2: "L4", 3: "L3"}
    x_mm, y_mm, z_mm = 1.0, 2.0, 4.0
    naive: dict[frozenset[str], float] = {}
    for step, area in (((1, 0, 0), x_mm * y_mm), ((0, 1, 0), x_mm * z_mm), ((0, 0, 1), y_mm * z_mm)):
        for place in np.ndindex(labels.shape):
            after = tuple(np.add(place, step))
            if all(one < size for one, size in zip(after, labels.shape, strict=True)):
                pair = frozenset({names.get(int(labels[place]), ""), names.get(int(labels[after]), "")})
                if len(pair) == 2 and "" not in pair:
                    naive[pair] = naive.get(pair, 0.0) + area
    found = mixed.contact_areas_mm2(labels, names, (x_mm, y_mm, z_mm))
    assert {frozenset(pair): area for pair, area in found.items()} == naive


def test_a_level_that_the_network_wavered_about_is_named_with_the_other() -> None:
    """T13 is taken for T12 as much as for L1; of T12 itself nothing was seen."""
    spine = draw(Settings(1, levels=THIRTEEN_THORACIC[15:23], missing="T12", noise=0.2))
    found = vertebrae.measure(spine.label_map, spine.volume)
    [warning] = mixed.wavering_warnings(found, spine.label_map)
    assert warning.code == "labels_mixed"
    assert "T12 (50%) may be L1 (45%)" in warning.message


def test_a_level_that_is_unsure_for_another_reason_is_not_named() -> None:
    spine = draw(Settings(1, levels=LEVELS[15:22]))
    found = [replace(one, confidence=0.5) for one in vertebrae.measure(spine.label_map, spine.volume)]
    assert mixed.wavering_warnings(found, spine.label_map) == []


# R3


def test_a_body_that_the_numbering_passed_over_leaves_a_jump() -> None:
    spine = draw(Settings(2, levels=LEVELS[2:], missing="T8", shifted=LEVELS[2:14], shift=1))
    assert "T8 and T9" in message(told(spine), "spacing_jump")


def test_a_body_that_was_divided_leaves_two_that_lie_too_near() -> None:
    row = moved(evenly("T5", "T6", "T7", "T8", "T9"), "T7", 14.0)
    [warning] = doubts.spacing_warnings(row)
    assert "T6 and T7" in warning.message
    assert "one vertebra" in warning.message


def test_distances_are_those_of_the_region() -> None:
    assert doubts.spacing_warnings(evenly("C5", "C6", "C7", "T1", "T2")) == []
    assert doubts.spacing_warnings(evenly("T11", "T12", "L1", "L2")) == []


def test_a_child_s_spine_is_measured_by_itself() -> None:
    row = [placed(one.label, 0.5 * one.center_mm.z) for one in evenly("T5", "T6", "T7", "T8", "T9")]
    assert doubts.spacing_warnings(row) == []


def test_what_the_image_cuts_has_no_distance() -> None:
    row = moved(evenly("T5", "T6", "T7", "T8"), "T8", 15.0)
    assert doubts.spacing_warnings(row) != []
    assert doubts.spacing_warnings([*row[:3], replace(row[3], truncated=True)]) == []


# R5


def test_without_an_anchor_the_numbering_is_a_guess() -> None:
    [warning] = told(draw(Settings(3, levels=LEVELS[8:20])))
    assert warning.code == "numbering_uncertain"
    assert "±1" in warning.message


@pytest.mark.parametrize("anchor", ["C1", "C2", "S1"])
def test_one_anchor_is_enough(anchor: str) -> None:
    assert doubts.numbering_warnings(evenly(anchor), sacrum_in_view=False) == []


def test_the_sacrum_is_an_anchor_where_a_network_counts_s1_to_it() -> None:
    spine = draw(Settings(3, levels=LEVELS[15:]))
    spine.labels[spine.labels == NUMBERS["S1"]] = NUMBERS["sacrum"]
    assert told(spine) == []
    assert [warning.code for warning in told(spine, sacrum_label=None)] == ["numbering_uncertain"]


def test_the_sacrum_s_label_is_told_from_a_network_s_labels() -> None:
    assert vertebrae.sacrum_label({0: "background", 25: "sacrum", 26: "vertebrae_S1"}) == 25
    assert vertebrae.sacrum_label({0: "background", 1: "vertebrae_L5"}) is None


# R6 and R7


def test_a_level_less_between_c2_and_the_sacrum_is_counted() -> None:
    assert "21 vertebrae" in message(told(draw(Settings(4, levels=ELEVEN_THORACIC))), "count_unusual")


def test_a_second_body_with_one_label_is_counted_too() -> None:
    row = evenly(*LEVELS[1:])
    both = [*row, placed("T7", -1000)]
    assert "23 vertebrae" in message(doubts.count_warnings(both, sacrum_in_view=True), "count_unusual")
    assert doubts.count_warnings(row, sacrum_in_view=True) == []


@pytest.mark.parametrize(("count", "by_one"), [(20, False), (21, True), (22, None), (23, True), (24, False)])
def test_one_vertebra_more_or_less_is_said_of_no_other_count(*, count: int, by_one: bool | None) -> None:
    row = [*evenly("C2", *LEVELS[2 : min(count, 22) + 2]), *(placed("T7", -1000 - 50 * n) for n in range(count - 22))]
    messages = [warning.message for warning in doubts.count_warnings(row, sacrum_in_view=True)]
    assert ["one vertebra more or less" in text for text in messages] == ([] if by_one is None else [by_one])


def test_a_part_of_the_spine_is_not_counted() -> None:
    assert doubts.count_warnings(evenly("C1", "C2", "C3"), sacrum_in_view=False) == []
    assert doubts.count_warnings(evenly("L4", "L5"), sacrum_in_view=True) == []


@pytest.mark.parametrize("has_s1", [True, False], ids=["S1", "sacrum"])
def test_l4_on_the_sacrum_is_told(*, has_s1: bool) -> None:
    spine = draw(Settings(5, levels=FOUR_LUMBAR[14:]))
    if not has_s1:
        spine.labels[spine.labels == NUMBERS["S1"]] = NUMBERS["sacrum"]
    assert "directly below L4" in message(told(spine), "count_unusual")


def test_an_l5_that_was_only_not_found_leaves_l4_far_from_the_sacrum() -> None:
    codes = {warning.code for warning in told(draw(Settings(5, levels=LEVELS[14:], missing="L5")))}
    assert codes == {"numbering_gap"}


@pytest.mark.parametrize("has_s1", [True, False], ids=["S1", "sacrum"])
def test_an_l5_too_far_above_the_sacrum_is_told(*, has_s1: bool) -> None:
    spine = draw(Settings(6, levels=LEVELS[14:], missing="L5", shifted=LEVELS[14:23], shift=1))
    if not has_s1:
        spine.labels[spine.labels == NUMBERS["S1"]] = NUMBERS["sacrum"]
    assert "as far above the sacrum" in message(told(spine), "count_unusual")


def test_where_s1_is_cut_the_sacrum_below_it_says_nothing_of_l5() -> None:
    row = evenly("L3", "L4", "L5", "S1")
    places = np.array([[0.0, -8.0, row[-1].center_mm.z - 17.0]])
    assert doubts.lumbosacral_warnings(row, places) == []
    assert doubts.lumbosacral_warnings([*row[:3], replace(row[3], truncated=True)], places) == []


# R8


def turned(spine: SyntheticSpine, *axes: int) -> SyntheticSpine:
    """As a header would have it that is wrong about these axes (z, y, x)."""
    return replace(spine, labels=np.flip(spine.labels, axes), probabilities=np.flip(spine.probabilities, axes))


@pytest.mark.parametrize(
    ("axes", "word"), [((0, 2), "head to foot"), ((1, 2), "spinous processes")], ids=["upside down", "back to front"]
)
def test_a_spine_that_its_header_turns_is_doubtful(axes: tuple[int, ...], word: str) -> None:
    assert word in message(told(turned(draw(Settings(7, levels=LEVELS[10:])), *axes)), "orientation_doubtful")


def test_a_spine_that_lies_across_the_patient_s_axis_is_doubtful() -> None:
    row = [
        replace(one, center_mm=Point(0, one.center_mm.z, 0), body=None) for one in evenly("T5", "T6", "T7", "T8", "T9")
    ]
    [warning] = doubts.direction_warnings(row)
    assert "90°" in warning.message


def test_two_vertebrae_have_no_direction() -> None:
    assert doubts.direction_warnings(evenly("T6", "T5")) == []


# R9


def volumes(*volumes_ml: float, labels: tuple[str, ...] = LEVELS[10:]) -> list[Vertebra]:
    return [
        placed(label, -24.0 * index, volume_ml=volume_ml)
        for index, (label, volume_ml) in enumerate(zip(labels, volumes_ml, strict=False))
    ]


@pytest.mark.parametrize("volume_ml", [10.0, 40.0])
def test_a_vertebra_far_from_its_neighbours_in_size_is_named(volume_ml: float) -> None:
    [warning] = doubts.volume_warnings(volumes(20, 20, volume_ml, 21, 22))
    assert warning.code == "volume_unusual"
    assert f"T6 ({volume_ml:.0f} ml" in warning.message


def test_one_that_the_image_cuts_is_not_compared() -> None:
    row = volumes(20, 20, 9, 21, 22)
    assert doubts.volume_warnings([*row[:2], replace(row[2], truncated=True), *row[3:]]) == []


def test_one_as_large_as_two_beside_a_level_that_was_not_found_carries_one_label_on_two_bodies() -> None:
    spine = draw(Settings(8, fused="T8", shifted=("T8",), shift=1))
    warnings = told(spine)
    assert "T9" in message(warnings, "label_repeated")
    assert "volume_unusual" not in {warning.code for warning in warnings}


def test_a_level_that_the_image_cuts_was_found() -> None:
    row = volumes(20, 20, 20, 32, 22, 22)
    cut = [*row[:2], replace(row[2], truncated=True), *row[3:]]
    assert doubts.volume_warnings(cut) == []
    [warning] = doubts.volume_warnings([*row[:2], *row[3:]])
    assert warning.code == "label_repeated"


def test_no_vertebra_raises_no_doubt() -> None:
    spine = draw(Settings(9, levels=LEVELS[20:22]))
    empty = replace(spine, labels=np.zeros_like(spine.labels))
    assert [warning.code for warning in told(empty)] == ["no_vertebrae"]


# TotalSegmentator's own masks

REFERENCES = {
    "ct_abdomen_small/total.nii.gz": {"numbering_uncertain"},
    "ct_abdomen_small/total_fast.nii.gz": {"numbering_uncertain"},
    # Parts of T12's body carry T11's label there.
    "ct_dicom_series_reference/total.nii.gz": {"numbering_uncertain", "label_repeated", "labels_mixed"},
}


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=NOT_HERE)
@pytest.mark.parametrize("reference", REFERENCES)
def test_the_reference_masks_of_real_images_raise_no_doubt_that_is_wrong(reference: str) -> None:
    codes = {warning.code for warning in told(_read(SHARED_DATA / reference), sacrum_label=25)}
    assert codes - {"touching_border"} == REFERENCES[reference]


def _read(mask: Path) -> SyntheticSpine:
    image = nib.load(mask)
    labels: NDArray[np.uint8] = np.ascontiguousarray(np.asanyarray(image.dataobj).astype(np.uint8).T)
    affine = grids.RAS_FROM_LPS @ image.affine
    whole = grids.whole_box(Voxel(*labels.shape[::-1]))
    grid = grids.model_grid(affine, whole, grids.spacing_mm(affine))
    upright = np.flip(labels, [2 - place for place, axis in enumerate(grid.axes) if axis.step < 0])
    names = vertebrae.vertebra_names(class_map["total"])
    return SyntheticSpine(upright, np.ones(upright.shape, np.float16), None, grid, affine, names, ())
