"""The synthetic spine: what is said of it is what is drawn of it, on whatever grid."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from phantom import drawing, grid, spine

PART = spine.LEVELS[16:22]
"""T10 to L3."""


def centers_mm(labels: NDArray[np.uint8], affine_lps: grid.Affine) -> dict[str, NDArray[np.float64]]:
    """The centre of mass of each label, LPS."""
    found = {}
    for name, number in spine.LABELS.items():
        indices = np.argwhere(labels == number)
        if len(indices):
            found[name] = affine_lps[:3, :3] @ indices.mean(axis=0)[::-1] + affine_lps[:3, 3]
    return found


def test_the_same_seed_gives_the_same_volume() -> None:
    first, second = (spine.describe(4, PART) for _ in range(2))
    shape, affine = grid.axial(first, (4, 4, 4))
    for one, other in zip(drawing.render(first, shape, affine), drawing.render(second, shape, affine), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_gives_another_spine() -> None:
    one, other = (spine.describe(seed, PART).levels[0] for seed in (1, 2))
    assert np.linalg.norm(one.center_mm - other.center_mm) > 1


@pytest.mark.parametrize("turned", [False, True])
def test_the_truth_is_where_the_labels_are_drawn(turned: bool) -> None:
    body = spine.describe(7, PART)
    spacing = (0.9, 0.8, 1.1)
    scanned = grid.turned(body, spacing, (12, -9, 25)) if turned else grid.axial(body, spacing)
    found = centers_mm(drawing.render(body, *scanned)[1], scanned[1])
    truth = drawing.truth(body)
    assert set(found) == set(truth) == set(PART)
    for name, center in found.items():
        assert np.linalg.norm(center - truth[name].center_mm) <= 0.3, name


def test_the_truths_corners_enclose_its_center_and_what_is_drawn() -> None:
    body = spine.describe(7, PART)
    shape, affine = grid.axial(body, (1, 1, 1))
    labels = drawing.render(body, shape, affine)[1]
    for name, true in drawing.truth(body).items():
        indices = np.argwhere(labels == spine.LABELS[name])[:, ::-1]
        np.testing.assert_allclose(indices.min(axis=0) + affine[:3, 3], true.low_mm)
        np.testing.assert_allclose(indices.max(axis=0) + affine[:3, 3], true.high_mm)


def test_a_turned_grid_keeps_its_spacing_and_its_right_angles() -> None:
    _, affine = grid.turned(spine.describe(0, PART), (0.9, 0.8, 1.1), (12, -9, 25))
    columns = affine[:3, :3]
    np.testing.assert_allclose(columns.T @ columns, np.diag(np.square((0.9, 0.8, 1.1))), atol=1e-9)
    assert np.linalg.det(columns) > 0


def test_levels_lie_in_order_from_head_to_foot() -> None:
    heights = [level.center_mm[2] for level in spine.describe(0).levels]
    assert heights == sorted(heights, reverse=True)


def test_every_level_has_a_code_of_its_own() -> None:
    assert len({spine.code(name) for name in spine.LEVELS}) == len(spine.LEVELS) == 25


def test_neighbours_differ_in_both_halves() -> None:
    for upper, lower in pairwise(spine.LEVELS):
        assert all(one != other for one, other in zip(spine.code(upper), spine.code(lower), strict=True))


@pytest.mark.parametrize("name", ["C4", "T7", "L2"])
def test_the_halves_of_a_body_have_the_densities_of_its_code(name: str) -> None:
    body = spine.describe(2, [name])
    level = body.levels[0]
    shape, affine = grid.axial(body, (1, 1, 1))
    hu, _ = drawing.render(body, shape, affine, noise_hu=0)
    for side, expected in zip((1, -1), spine.code(name), strict=True):
        place = level.center_mm + side * level.axes[0] * level.half_width / 2
        x, y, z = np.rint(place - affine[:3, 3]).astype(int)
        assert hu[z, y, x] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("levels", [spine.LEVELS[:3], spine.LEVELS[9:13], ("L5",)])
def test_a_part_of_a_spine_has_the_labels_of_its_levels_only(levels: tuple[str, ...]) -> None:
    body = spine.describe(5, levels)
    _, labels = drawing.render(body, *grid.axial(body, (2, 2, 2)))
    assert set(np.unique(labels)) == {0} | {spine.LABELS[name] for name in levels}


def test_a_spine_that_ends_with_s1_has_a_sacrum_below() -> None:
    body = spine.describe(5, ("L5", "S1"))
    scanned = grid.axial(body, (2, 2, 2))
    found = centers_mm(drawing.render(body, *scanned)[1], scanned[1])
    assert set(found) == {"L5", "S1", "sacrum"}
    assert found["sacrum"][2] < found["S1"][2]


def test_a_grid_that_sees_nothing_of_the_spine_has_no_labels() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 5000
    hu, labels = drawing.render(spine.describe(0, PART), (10, 10, 10), affine, noise_hu=0)
    assert not labels.any()
    assert (hu == drawing.CT_TISSUES.air).all()
