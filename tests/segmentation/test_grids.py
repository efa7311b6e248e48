"""The grid a network sees against scipy and nibabel, which TotalSegmentator uses for the same steps."""

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from openscans.segmentation import grids, resampling
from openscans.types import Bounds, Point, Voxel


def random_affine_lps(seed: int, *, tilt_deg: float = 40.0) -> NDArray[np.float64]:
    """An oblique affine with random spacing, permuted and flipped axes and origin."""
    random = np.random.default_rng(seed)
    axis = random.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(random.uniform(-tilt_deg, tilt_deg))
    cross = np.cross(np.eye(3), axis)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    columns = rotation[:, random.permutation(3)] * random.choice([-1, 1], 3) * random.uniform(0.6, 5.0, 3)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = random.uniform(-300, 300, 3)
    return affine


def size_of(voxels: NDArray[np.generic]) -> Voxel:
    z, y, x = voxels.shape
    return Voxel(x, y, z)


def totalsegmentator_resampled(voxels: NDArray[np.int16], affine_lps: NDArray[np.float64], mm: float) -> NDArray:
    """Steps 4 and 5 as TotalSegmentator does them: closest canonical, zoom of order 1, truncated. (z, y, x)."""
    ndimage = pytest.importorskip("scipy.ndimage")
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), grids.RAS_FROM_LPS @ affine_lps)
    canonical = nib.as_closest_canonical(image)
    zoom = np.array(canonical.header.get_zooms()) / np.array([mm] * 3)
    resampled = ndimage.zoom(canonical.get_fdata(), zoom, mode="nearest", order=1).astype(np.int32)
    return resampled.transpose(2, 1, 0)


@pytest.mark.parametrize("seed", range(12))
def test_sampling_equals_closest_canonical_and_zoom(seed: int) -> None:
    random = np.random.default_rng(seed)
    voxels = random.integers(-1024, 1500, random.integers(9, 40, 3)).astype(np.int16)
    affine = random_affine_lps(seed)
    grid = grids.model_grid(affine, grids.whole_box(size_of(voxels)), (1.5, 1.5, 1.5))
    ours = np.trunc(resampling.resample(voxels, grid, truncate=False))
    theirs = totalsegmentator_resampled(voxels, affine, 1.5)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1
    # Where the exact value is a whole number, scipy's rounding may truncate it to the one below.
    assert np.mean(ours == theirs) > 0.99


@pytest.mark.parametrize(
    ("voxels", "spacing_mm", "target_mm", "samples"),
    [(402, 0.875, 1.5, 235), (210, 0.875, 1.5, 123), (105, 1.75, 1.5, 123), (456, 1.625, 6.0, 123)],
)
def test_a_length_between_two_counts_of_samples_is_rounded_as_zoom_rounds_it(
    voxels: int, spacing_mm: float, target_mm: float, samples: int
) -> None:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    grid = grids.model_grid(affine, grids.whole_box(Voxel(voxels, 4, 4)), [target_mm] * 3)
    assert grid.x.count == samples


def test_an_even_region_stays_even_when_truncated() -> None:
    voxels = np.full((30, 31, 32), -1000, np.int16)
    affine = np.diag([0.7, 0.7, 1.25, 1.0])
    grid = grids.model_grid(affine, grids.whole_box(size_of(voxels)), (1.5, 1.5, 1.5))
    sampled = resampling.resample(voxels, grid, truncate=False)
    assert np.array_equal(np.trunc(sampled), np.full(sampled.shape, -1000))


def test_fractions_are_cut_off_before_the_interpolation_when_asked() -> None:
    voxels = np.random.default_rng(1).uniform(-1000, 1000, (9, 8, 7)).astype(np.float32)
    grid = grids.model_grid(np.diag([2.0, 2.0, 2.0, 1.0]), grids.whole_box(size_of(voxels)), (1.5, 1.5, 1.5))
    whole_numbers = resampling.resample(np.trunc(voxels).astype(np.int16), grid, truncate=False)
    assert np.array_equal(resampling.resample(voxels, grid, truncate=True), whole_numbers)


@pytest.mark.parametrize("seed", range(12))
def test_labels_return_to_the_client_as_zoom_of_order_0_and_undone_canonical_return_them(seed: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(seed)
    affine = random_affine_lps(seed)
    size = Voxel(*(int(n) for n in random.integers(9, 40, 3)))
    grid = grids.model_grid(affine, grids.whole_box(size), (1.5, 1.5, 1.5))
    labels = random.integers(0, 27, grid.shape_zyx).astype(np.uint8)
    image = nib.Nifti1Image(np.zeros((size.x, size.y, size.z), np.uint8), grids.RAS_FROM_LPS @ affine)
    canonical = nib.as_closest_canonical(image)
    upsampled = ndimage.zoom(
        labels.transpose(2, 1, 0), np.array(canonical.shape) / grid.shape_zyx[::-1], mode="nearest", order=0
    )
    back = nib.Nifti1Image(upsampled, canonical.affine).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(image.affine)
        )
    )
    theirs = np.asanyarray(back.dataobj).transpose(2, 1, 0)
    assert np.array_equal(resampling.volume_labels(labels, grid, size), theirs)


@pytest.mark.parametrize("seed", range(12))
def test_bounds_are_those_of_the_label_map_on_the_clients_grid(seed: int) -> None:
    random = np.random.default_rng(seed)
    affine = random_affine_lps(seed)
    size = Voxel(60, 70, 80)
    grid = grids.model_grid(affine, Bounds(Voxel(3, 4, 5), Voxel(50, 60, 70)), (1.5, 1.5, 1.5))
    low = [int(random.integers(0, max(axis.count // 2, 1))) for axis in grid.axes]
    high = [min(a + 8, axis.count - 1) for a, axis in zip(low, grid.axes, strict=True)]
    labels = np.zeros(grid.shape_zyx, np.uint8)
    labels[low[2] : high[2] + 1, low[1] : high[1] + 1, low[0] : high[0] + 1] = 1
    z, y, x = np.nonzero(resampling.volume_labels(labels, grid, size))
    bounds = grids.volume_bounds(grid, low, high)
    assert bounds == Bounds(
        Voxel(int(x.min()), int(y.min()), int(z.min())), Voxel(int(x.max()), int(y.max()), int(z.max()))
    )


def test_bounds_thinner_than_a_client_voxel_are_the_voxel_nearest_to_them() -> None:
    grid = grids.model_grid(np.diag([1.5, 1.5, 12.0, 1.0]), grids.whole_box(Voxel(10, 10, 5)), (1.5, 1.5, 1.5))
    bounds = grids.volume_bounds(grid, (0, 0, 13), (3, 3, 15))
    assert (bounds.min.z, bounds.max.z) == (1, 1) or (bounds.min.z, bounds.max.z) == (2, 2)


@pytest.mark.parametrize("target_mm", [0.7, 1.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_centroid_is_that_of_the_label_map_on_the_client_s_grid(seed: int, target_mm: float) -> None:
    random = np.random.default_rng(seed)
    size = Voxel(31, 28, 25)
    grid = grids.model_grid(random_affine_lps(seed), grids.whole_box(size), [target_mm] * 3)
    low = [count // 4 for count in grid.shape_zyx]
    labels = np.zeros(grid.shape_zyx, np.uint8)
    box = tuple(slice(start, start + max(count // 2, 1)) for start, count in zip(low, grid.shape_zyx, strict=True))
    labels[box] = random.random(labels[box].shape) < 0.6
    found = grids.volume_centroid(grid, labels[box] == 1, low[::-1])
    expected = np.argwhere(resampling.volume_labels(labels, grid, size)).mean(axis=0)[::-1]
    np.testing.assert_allclose((found.x, found.y, found.z), expected)


def test_a_piece_that_no_client_voxel_is_nearest_to_has_its_samples_mean_as_centroid() -> None:
    grid = grids.model_grid(np.diag([1.5, 1.5, 12.0, 1.0]), grids.whole_box(Voxel(10, 10, 5)), (1.5, 1.5, 1.5))
    found = grids.volume_centroid(grid, np.ones((2, 3, 3), bool), (2, 2, 4))
    assert grid.z.shares()[0][4:6].tolist() == [0, 0]
    assert (found.x, found.z) == pytest.approx((6, 4.5 * abs(grid.z.step)))


@pytest.mark.parametrize("seed", range(6))
def test_ends_of_the_model_grid_lie_on_the_ends_of_the_box(seed: int) -> None:
    affine = random_affine_lps(seed)
    box = Bounds(Voxel(3, 4, 5), Voxel(50, 60, 70))
    grid = grids.model_grid(affine, box, (1.5, 1.5, 1.5))
    start = grids.volume_point(grid, (0, 0, 0))
    end = grids.volume_point(grid, [axis.count - 1 for axis in grid.axes])
    assert sorted([start.x, end.x]) == pytest.approx([3, 50])
    assert sorted([start.y, end.y]) == pytest.approx([4, 60])
    assert sorted([start.z, end.z]) == pytest.approx([5, 70])


@pytest.mark.parametrize("seed", range(6))
def test_model_axes_run_towards_right_anterior_and_superior(seed: int) -> None:
    affine = random_affine_lps(seed, tilt_deg=20)
    grid = grids.model_grid(affine, grids.whole_box(Voxel(40, 40, 40)), (1.5, 1.5, 1.5))
    origin = grids.lps_mm(affine, grids.volume_point(grid, (0, 0, 0)))
    for step, axis, sign in (((9, 0, 0), "x", -1), ((0, 9, 0), "y", -1), ((0, 0, 9), "z", 1)):
        moved = grids.lps_mm(affine, grids.volume_point(grid, step))
        assert sign * (getattr(moved, axis) - getattr(origin, axis)) > 0


def test_the_margin_is_cut_down_to_whole_voxels_and_clipped_to_the_image() -> None:
    box = grids.grow_box(
        Bounds(Voxel(10, 40, 50), Voxel(60, 60, 60)),
        np.diag([0.9, 3.0, 7.0, 1.0]),
        margin_mm=20,
        size=Voxel(75, 100, 62),
    )
    assert box == Bounds(Voxel(0, 34, 48), Voxel(74, 66, 61))


def test_a_voxel_s_position_in_patient_space_follows_the_affine() -> None:
    affine = np.array([[0, 0, 2, -5], [-1, 0, 0, 7], [0, 3, 0, 100], [0, 0, 0, 1]], float)
    assert grids.lps_mm(affine, Point(1, 2, 3)) == Point(1, 6, 106)


def test_sample_volumes_add_up_to_the_volume_between_the_outermost_voxels() -> None:
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    grid = grids.model_grid(affine, grids.whole_box(Voxel(101, 101, 51)), (1.5, 1.5, 1.5))
    between = np.prod([count - 1 for count in grid.shape_zyx])
    assert grids.sample_volume_ml(grid, affine) * between == pytest.approx(50 * 50 * 100 / 1000)
