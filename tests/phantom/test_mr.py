"""The synthetic MR: the CT's body with an MR's signals and an MR's faults."""

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from phantom import drawing, grid, mr, spine

BODY = spine.describe(2, ("T12", "L1", "L2"))
MIDDLE = BODY.levels[1]
WEIGHTINGS = get_args(mr.Weighting)


def flawless(weighting: mr.Weighting, thickness_mm: float = 1.0) -> mr.Sequence:
    return mr.Sequence(weighting, thickness_mm, bias=0, coils=0, noise=0, gain=1)


def scanned(sequence: mr.Sequence, between_mm: float = 1.0) -> tuple[NDArray[np.float32], grid.Affine]:
    shape, affine = grid.sagittal(BODY, 1.0, between_mm, width_mm=60)
    return mr.render(BODY, shape, affine, sequence, seed=3)[0], affine


def signal_at(image: tuple[NDArray[np.float32], grid.Affine], place_mm: NDArray[np.float64]) -> float:
    """Of the voxel nearest to a place in the patient, LPS."""
    x, y, z = np.rint(np.linalg.solve(image[1], (*place_mm, 1.0))[:3]).astype(int)
    return float(image[0][z, y, x])


def beside(left_mm: float, back_mm: float, up_mm: float) -> NDArray[np.float64]:
    """A place that lies so far from the middle of the middle vertebra's body."""
    return MIDDLE.center_mm + np.array([left_mm, back_mm, up_mm]) @ MIDDLE.axes


CANAL = beside(0, MIDDLE.half_depth + MIDDLE.canal_radius - 1, 0)
DISC = beside(0, 0, -MIDDLE.height / 2 - 2)
MUSCLE = beside(0, -MIDDLE.half_depth - 20, 0)
END_PLATE = beside(4, 0, MIDDLE.height / 2 - 0.8)


def test_fluid_and_discs_are_bright_in_t2_and_dark_in_t1() -> None:
    t1, t2 = (scanned(flawless(weighting)) for weighting in WEIGHTINGS)
    for place in (CANAL, DISC):
        assert signal_at(t1, place) < signal_at(t1, MUSCLE) < signal_at(t2, MUSCLE) + 0.2 < signal_at(t2, place)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_cortex_is_darker_than_marrow_and_muscle(weighting: mr.Weighting) -> None:
    image = scanned(flawless(weighting))
    assert signal_at(image, END_PLATE) < min(signal_at(image, MUSCLE), *mr.MARROW) * 0.9


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_halves_of_a_body_have_the_signals_of_its_code(weighting: mr.Weighting) -> None:
    image = scanned(flawless(weighting))
    for side, steps, step in zip((1, -1), (spine.LEFT_HU, spine.RIGHT_HU), spine.code(MIDDLE.name), strict=True):
        place = beside(side * MIDDLE.half_width / 2, 0, 0)
        assert signal_at(image, place) == pytest.approx(mr.MARROW[steps.index(step)], abs=0.01)


def test_the_labels_are_those_of_the_ct() -> None:
    shape, affine = grid.sagittal(BODY, 2.0, 4.0, angles_deg=(8, -3, 4))
    _, labels = mr.render(BODY, shape, affine, mr.Sequence("T1"))
    np.testing.assert_array_equal(labels, drawing.render(BODY, shape, affine)[1])


def test_a_thick_slice_mixes_what_it_holds() -> None:
    across = [scanned(flawless("T1", thickness_mm))[0] for thickness_mm in (0.1, 6.0)]
    steepest = [np.abs(np.diff(signal, axis=2)).max() for signal in across]
    assert steepest[1] < 0.7 * steepest[0]


def test_coils_behind_the_back_see_what_lies_in_front_fainter() -> None:
    even, uneven = (
        scanned(mr.Sequence("T1", 1.0, bias=0, coils=share, noise=0, gain=1), between_mm=4.0) for share in (0, 1)
    )
    front, back = beside(0, -60, 0), beside(0, 50, 0)
    assert signal_at(even, front) == pytest.approx(signal_at(even, beside(0, -40, 0)), abs=0.01)
    assert signal_at(uneven, front) < 0.75 * signal_at(even, front)
    assert signal_at(uneven, back) > signal_at(even, back)
    assert signal_at(uneven, MIDDLE.center_mm) == pytest.approx(signal_at(even, MIDDLE.center_mm), rel=0.05)


def test_the_bias_varies_slowly_and_by_as_much_as_was_said() -> None:
    even, biased = (
        scanned(mr.Sequence("T1", 1.0, bias=share, coils=0, noise=0, gain=1), between_mm=4.0)[0] for share in (0, 0.1)
    )
    ratio = biased[even > 0.1] / even[even > 0.1]
    assert 0.02 < ratio.std() < 0.15
    field = np.where(even > 0.1, biased / np.maximum(even, 0.1), np.nan)
    assert np.nanmax(np.abs(np.diff(field, axis=0))) < 0.01


def test_where_there_is_no_signal_noise_has_the_mean_of_a_magnitude() -> None:
    signal, _ = scanned(mr.Sequence("T2", noise=0.03, gain=1), between_mm=4.0)
    air = signal[:3]
    assert signal.min() >= 0
    assert air.mean() == pytest.approx(0.03 * np.sqrt(np.pi / 2), rel=0.05)


def test_the_same_seed_gives_the_same_image() -> None:
    one, other = (scanned(mr.Sequence("T2"), between_mm=4.0)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
