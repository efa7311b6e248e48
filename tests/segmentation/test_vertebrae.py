"""Measuring on label maps whose answers are known: drawn ones, and TotalSegmentator's own reference segmentations."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from totalsegmentator.map_to_binary import class_map

from openscans.segmentation import grids, plausibility, vertebrae
from openscans.types import Bounds, Point, SlicePixel, Vertebra, Voxel
from openscans.volumes import Instance, Volume
from openscans.volumes.stored import StoredSlices
from tests.sample_vertebra import SAMPLE
from tests.shared_data import NOT_HERE, SHARED_DATA

NAMES = {1: "L5", 2: "L4", 3: "L3", 4: "T12"}
HALF = np.float16(0.5)


def same_grid(shape_zyx: tuple[int, int, int]) -> grids.ModelGrid:
    z, y, x = (grids.Axis(2 - axis, 0, count - 1, count) for axis, count in enumerate(shape_zyx))
    return grids.ModelGrid(x, y, z)


def label_map(labels: NDArray[np.uint8], probabilities: NDArray[np.float16] | None = None) -> vertebrae.LabelMap:
    if probabilities is None:
        probabilities = np.full(labels.shape, HALF)
    return vertebrae.LabelMap(labels, probabilities, same_grid(labels.shape), NAMES)


def measured(found: vertebrae.LabelMap, affine: NDArray[np.float64] | None = None) -> list[Vertebra]:
    return vertebrae.measure(found, image_of(found.labels, np.eye(4) if affine is None else affine))


def image_of(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> Volume:
    """An image of the label map's size, at that place; what its voxels hold does not matter."""
    return Volume(labels.astype(np.int16), affine)


def drawn(*blocks: tuple[int, slice, slice, slice]) -> NDArray[np.uint8]:
    labels = np.zeros((20, 30, 40), np.uint8)
    for label, z, y, x in blocks:
        labels[z, y, x] = label
    return labels


def test_a_block_has_its_centre_bounds_and_volume() -> None:
    [l5] = measured(label_map(drawn((1, slice(2, 6), slice(10, 15), slice(20, 31)))), np.diag([2.0, 2.0, 2.5, 1.0]))
    assert l5.label == "L5"
    assert l5.center == Point(25, 12, 3.5)
    assert l5.center_mm == Point(50, 24, 8.75)
    assert l5.bounds == Bounds(Voxel(20, 10, 2), Voxel(30, 14, 5))
    assert l5.volume_ml == pytest.approx(4 * 5 * 11 * 10 / 1000)
    assert not l5.truncated


def test_a_vertebra_is_told_on_the_slices_as_they_are_stored() -> None:
    labels = drawn((1, slice(2, 7), slice(10, 15), slice(20, 31)))
    # Every second of 20 planes is a stored slice, each pushed half a voxel further along y than the one before.
    origins = np.array([(0.0, 0.5 * index, 2.0 * index) for index in range(10)])
    stored = StoredSlices(origins, Voxel(40, 25, 10), labels.shape)
    instances = tuple(Instance(f"1.{index}", index + 1, Path(f"{index}.dcm")) for index in range(10))
    voxels, affine = labels.astype(np.int16), np.diag([2.0, 2.0, 1.5, 1.0])
    [l5] = vertebrae.measure(label_map(labels), Volume(voxels, affine, instances=instances, stored=stored))
    assert l5.center == Point(25, 11, 2)
    assert l5.center_mm == Point(50, 24, 6)
    assert l5.bounds == Bounds(Voxel(20, 8, 1), Voxel(30, 14, 3))
    assert l5.slice == SlicePixel("1.2", 3, index=2, frame_number=None, x=25, y=11)


@pytest.mark.parametrize(("first_row", "truncated"), [(2, True), (4, False)])
def test_a_vertebra_that_leaves_its_sheared_slices_is_truncated(first_row: int, truncated: bool) -> None:
    """At its lowest plane slices begin half a row into the volume, at its highest two rows and a half."""
    labels = drawn((1, slice(2, 11), slice(first_row, 15), slice(20, 31)))
    origins = np.array([(0.0, 0.5 * index, 2.0 * index) for index in range(10)])
    stored = StoredSlices(origins, Voxel(40, 25, 10), labels.shape)
    volume = Volume(labels.astype(np.int16), np.diag([2.0, 2.0, 1.5, 1.0]), stored=stored)
    [l5] = vertebrae.measure(label_map(labels), volume)
    assert l5.truncated is truncated


@pytest.mark.parametrize(
    ("second", "repeated"),
    [
        ((1, slice(14, 19), slice(10, 20), slice(20, 30)), True),
        ((1, slice(14, 15), slice(10, 20), slice(20, 30)), False),
        ((1, slice(8, 12), slice(10, 20), slice(20, 30)), False),
    ],
    ids=["a body of its own", "too small for a body", "the other half of the same"],
)
def test_a_second_body_of_one_label_is_told_with_its_place(
    second: tuple[int, slice, slice, slice], *, repeated: bool
) -> None:
    labels = drawn((1, slice(1, 7), slice(10, 20), slice(20, 30)), second)
    found = vertebrae.measure_all(label_map(labels), image_of(labels, np.diag([2.0, 2.0, 3.0, 1.0])))
    assert [vertebra.label for vertebra in found.vertebrae] == ["L5"]
    warnings = plausibility.repeated_warnings(found.repeated)
    assert [warning.code for warning in warnings] == ["label_repeated"] * repeated
    assert all("z 16" in warning.message for warning in warnings)


def test_only_the_largest_component_of_a_label_counts() -> None:
    labels = drawn((1, slice(2, 6), slice(2, 6), slice(2, 6)), (1, slice(12, 18), slice(12, 18), slice(12, 18)))
    [l5] = measured(label_map(labels))
    assert l5.center == Point(14.5, 14.5, 14.5)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    labels = drawn((1, slice(2, 4), slice(2, 4), slice(2, 4)), (1, slice(4, 6), slice(4, 6), slice(4, 6)))
    [l5] = measured(label_map(labels))
    assert l5.bounds == Bounds(Voxel(2, 2, 2), Voxel(5, 5, 5))


def test_neighbouring_labels_do_not_merge() -> None:
    labels = drawn((1, slice(2, 6), slice(5, 9), slice(5, 9)), (2, slice(6, 10), slice(5, 9), slice(5, 9)))
    assert [vertebra.center.z for vertebra in measured(label_map(labels))] == [7.5, 3.5]


def test_confidence_is_the_mean_probability_of_the_largest_component_alone() -> None:
    labels = drawn((1, slice(2, 6), slice(2, 6), slice(2, 6)), (1, slice(12, 14), slice(12, 14), slice(12, 14)))
    probabilities = np.full(labels.shape, np.float16(0.125))
    probabilities[2:4, 2:6, 2:6] = 0.75
    probabilities[4:6, 2:6, 2:6] = 0.25
    [l5] = measured(label_map(labels, probabilities))
    assert l5.confidence == pytest.approx(0.5)


@pytest.mark.parametrize(("axis", "edge"), [(axis, edge) for axis in range(3) for edge in ("start", "end")])
def test_a_vertebra_at_the_edge_of_the_image_is_truncated(axis: int, edge: str) -> None:
    block = [slice(5, 9)] * 3
    block[axis] = slice(0, 4) if edge == "start" else slice(-4, None)
    [l5] = measured(label_map(drawn((1, *block))))
    assert l5.truncated


def test_vertebrae_run_from_head_to_foot_and_other_labels_are_passed_over() -> None:
    spread = [(label, slice(2, 5), slice(2, 5), slice(4 * label, 4 * label + 2)) for label in (1, 4, 3, 2, 7)]
    assert [vertebra.label for vertebra in measured(label_map(drawn(*spread)))] == ["T12", "L3", "L4", "L5"]


def test_an_empty_label_map_has_no_vertebrae_and_no_extent() -> None:
    empty = label_map(drawn())
    assert measured(empty) == []
    assert vertebrae.extent(empty) is None
    assert [warning.code for warning in plausibility.plausibility_warnings([])] == ["no_vertebrae"]


def test_the_extent_holds_every_vertebra_and_nothing_else() -> None:
    labels = drawn(
        (1, slice(2, 4), slice(3, 9), slice(4, 5)),
        (3, slice(7, 8), slice(5, 6), slice(30, 33)),
        (9, *[slice(0, 2)] * 3),
    )
    assert vertebrae.extent(label_map(labels)) == Bounds(Voxel(4, 3, 2), Voxel(32, 8, 7))


def test_a_speck_is_left_out_and_named() -> None:
    labels = drawn((1, slice(2, 8), slice(2, 8), slice(2, 8)), (2, slice(15, 17), slice(15, 17), slice(15, 17)))
    kept, warnings = plausibility.drop_fragments(measured(label_map(labels)))
    assert [vertebra.label for vertebra in kept] == ["L5"]
    assert [warning.code for warning in warnings] == ["fragments_ignored"]
    assert "L4" in warnings[0].message


def placed(label: str, z_mm: float, *, truncated: bool = False) -> Vertebra:
    return replace(SAMPLE, label=label, center_mm=Point(0, 0, z_mm), truncated=truncated)


def codes(*found: Vertebra) -> list[str]:
    return [warning.code for warning in plausibility.plausibility_warnings(found)]


def test_a_plausible_row_raises_no_doubt() -> None:
    assert codes(placed("T11", 60), placed("T12", 30), placed("L1", 0)) == []


def test_a_missing_level_between_two_found_ones_is_a_numbering_gap_that_names_it() -> None:
    found = [placed("T10", 60), placed("T12", 30), placed("L2", 0)]
    [warning] = plausibility.plausibility_warnings(found)
    assert warning.code == "numbering_gap"
    assert "T11, L1" in warning.message


def test_a_spine_without_the_rare_t13_and_l6_has_no_gap() -> None:
    assert codes(placed("T12", 60), placed("L1", 30), placed("L2", 20)) == []
    assert codes(placed("L5", 60), placed("S1", 30)) == []


def test_a_lower_vertebra_above_an_upper_one_is_out_of_order() -> None:
    assert codes(placed("T11", 30), placed("T12", 60), placed("L1", 0)) == ["out_of_order"]


def test_truncated_vertebrae_are_named_as_touching_the_border() -> None:
    [warning] = plausibility.plausibility_warnings([placed("T11", 60, truncated=True), placed("T12", 30)])
    assert warning.code == "touching_border"
    assert "T11" in warning.message


def test_single_vertebrae_are_told_from_other_structures_by_their_names() -> None:
    labels = {0: "background", 1: "sacrum", 2: "vertebrae_S1", 3: "vertebrae_L5", 4: "vertebrae", 5: "rib_left_1"}
    assert vertebrae.vertebra_names(labels) == {2: "S1", 3: "L5"}


@pytest.mark.parametrize("number", range(26, 51))
def test_every_vertebra_of_totalsegmentator_s_class_map_is_known(number: int) -> None:
    name = class_map["total"][number]
    assert vertebrae.vertebra_names({number: name}) == {number: name.removeprefix("vertebrae_")}


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=NOT_HERE)
@pytest.mark.parametrize(
    "reference",
    ["ct_abdomen_small/total.nii.gz", "ct_abdomen_small/total_fast.nii.gz", "ct_dicom_series_reference/total.nii.gz"],
)
def test_reference_segmentations_measure_as_totalsegmentator_s_statistics(reference: str) -> None:
    statistics_module = pytest.importorskip("totalsegmentator.statistics", exc_type=ImportError)
    image = nib.load(SHARED_DATA / reference)
    segmentation = np.asanyarray(image.dataobj).astype(np.uint8)
    names = vertebrae.vertebra_names(class_map["total"])
    labels = np.ascontiguousarray(segmentation.T)
    found = vertebrae.LabelMap(labels, np.full(labels.shape, HALF), same_grid(labels.shape), names)
    theirs = statistics_module.get_basic_statistics(
        largest_pieces(segmentation, names),
        image,
        quiet=True,
        exclude_masks_at_border=False,
        extra_metrics=True,
        roi_subset=[f"vertebrae_{name}" for name in names.values()],
    )
    ours = vertebrae.measure(found, image_of(labels, grids.RAS_FROM_LPS @ image.affine))
    assert len(ours) >= 2
    for vertebra in ours:
        statistics = theirs[f"vertebrae_{vertebra.label}"]
        low, high = vertebra.bounds.min, vertebra.bounds.max
        center = [vertebra.center.x, vertebra.center.y, vertebra.center.z]
        assert [round(value, 2) for value in center] == statistics["centroid_vox"]
        assert [[low.x, high.x], [low.y, high.y], [low.z, high.z]] == statistics["bbox_vox"]
        assert vertebra.volume_ml == pytest.approx(statistics["volume"] / 1000, rel=1e-5)


def largest_pieces(segmentation: NDArray[np.uint8], labels: Iterable[int]) -> NDArray[np.uint8]:
    """scipy's judgement of each label's largest component."""
    ndimage = pytest.importorskip("scipy.ndimage")
    result = np.zeros_like(segmentation)
    for label in labels:
        pieces, count = ndimage.label(segmentation == label, structure=np.ones((3, 3, 3)))
        if count:
            result[pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])] = label
    return result
