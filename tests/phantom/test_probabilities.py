"""Synthetic spines with probabilities: what is clean is told right, and what is made wrong is wrong as it was asked."""

from dataclasses import astuple
from typing import get_args

import numpy as np
import pytest

from openscans.segmentation import vertebrae
from phantom.course import Shape
from phantom.probabilities import NUMBERS, THIRTEEN_THORACIC, Settings, SyntheticSpine, draw
from phantom.spine import LEVELS


def labels_of(spine: SyntheticSpine) -> list[str]:
    return [vertebra.label for vertebra in vertebrae.measure(spine.label_map, spine.volume)]


def label_at(spine: SyntheticSpine, level: str, up_mm: float) -> int:
    """Of the voxel so far above the centre of a level's body."""
    [center] = [body.center_mm for body in spine.truth if body.level == level]
    x, y, z = np.rint(np.linalg.solve(spine.affine_lps, [center[0], center[1], center[2] + up_mm, 1.0])[:3]).astype(int)
    return int(spine.labels[z, y, x])


@pytest.mark.parametrize("shape", get_args(Shape))
def test_a_clean_spine_has_every_level_where_it_is(shape: Shape) -> None:
    spine = draw(Settings(7, shape=shape))
    found = vertebrae.measure(spine.label_map, spine.volume)
    true = {body.level: body.center_mm for body in spine.truth}
    assert [vertebra.label for vertebra in found] == list(LEVELS)
    for vertebra in found[1:]:
        assert vertebra.body is not None
        assert np.linalg.norm(np.subtract(astuple(vertebra.body.center_mm), true[vertebra.label])) < 3
        assert vertebra.confidence > 0.8


def test_the_three_best_classes_of_a_voxel_differ_and_fall() -> None:
    spine = draw(Settings(7, levels=LEVELS[8:14], noise=3.0))
    labelled = spine.labels.ravel()[np.flatnonzero(spine.labels)]
    own = spine.probabilities.ravel()[np.flatnonzero(spine.labels)]
    assert spine.runners_up is not None
    assert spine.runners_up.labels.shape == spine.runners_up.probabilities.shape == (2, len(labelled))
    assert (spine.runners_up.labels != labelled).all()
    assert (np.diff([own, *spine.runners_up.probabilities], axis=0) <= 0).all()
    assert (own + spine.runners_up.probabilities.sum(axis=0) <= 1.01).all()


def test_the_same_settings_give_the_same_spine() -> None:
    one, other = (draw(Settings(3, levels=LEVELS[20:])) for _ in range(2))
    assert (one.labels == other.labels).all()
    assert (one.probabilities == other.probabilities).all()


def test_levels_that_are_shifted_missing_or_mixed_are_called_so() -> None:
    shown = LEVELS[10:22]
    spine = draw(Settings(5, levels=shown, shifted=("T5", "T6"), shift=1, missing="T9", mixed="T12"))
    assert label_at(spine, "T5", 0) == NUMBERS["T6"]
    assert label_at(spine, "T6", 0) == NUMBERS["T7"]
    assert label_at(spine, "T9", 0) == 0
    assert (label_at(spine, "T12", 5), label_at(spine, "T12", -5)) == (NUMBERS["T12"], NUMBERS["L1"])


def test_a_level_that_no_network_knows_is_taken_for_its_neighbours() -> None:
    spine = draw(Settings(5, levels=THIRTEEN_THORACIC[16:23]))
    assert "T13" in [body.level for body in spine.truth]
    assert label_at(spine, "T13", 0) in (NUMBERS["T12"], NUMBERS["L1"])


def test_a_fused_pair_has_bone_for_a_disc() -> None:
    usual, fused = (draw(Settings(5, levels=LEVELS[18:24], fused=level)) for level in (None, "L2"))
    assert label_at(usual, "L2", -17) == 0
    assert label_at(fused, "L2", -17) != 0


def test_a_field_that_is_cut_ends_in_the_first_and_the_last_body() -> None:
    spine = draw(Settings(5, levels=LEVELS[10:14], cut=True))
    found = vertebrae.measure(spine.label_map, spine.volume)
    assert [vertebra.truncated for vertebra in found] == [True, False, False, True]


def test_a_spurious_blob_is_a_piece_apart() -> None:
    spine = draw(Settings(5, levels=LEVELS[10:14], spurious_mm3=500.0))
    without = draw(Settings(5, levels=LEVELS[10:14]))
    more = np.count_nonzero(spine.labels) - np.count_nonzero(without.labels)
    assert more * 27 == pytest.approx(500, rel=0.4)
    assert labels_of(spine) == labels_of(without)
