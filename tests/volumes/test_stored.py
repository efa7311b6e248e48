"""Sheared and uneven stacks: what is resampled, and the way back to the image's columns, rows and slices."""

from pathlib import Path

import numpy as np
import pytest

from openscans.types import Bounds, Point, Voxel
from openscans.volumes import Volume
from tests.corpus.geometry import tilted
from tests.corpus.scene import at_heights, series
from tests.reading import read_volume

SKEWED = {
    "tilted": ([2.5 * z for z in range(12)], tilted(20)),
    "tilted sideways": ([2.5 * z for z in range(12)], tilted(-12, about="y")),
    "uneven": ([0.0, 1.0, 3.0, 4.5, 9.0, 10.0, 12.0, 17.0, 20.0, 21.0], None),
    "tilted and uneven": ([0.0, 1.0, 3.0, 4.5, 9.0, 10.0, 12.0, 17.0, 20.0, 21.0], tilted(15)),
}
"""Heights of the slices, and the grid they are taken from."""


@pytest.fixture(params=SKEWED)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    heights_mm, affine = SKEWED[request.param]
    if affine is not None:
        affine = affine.copy()
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2])
    at_heights(tmp_path, heights_mm, affine)
    return read_volume(tmp_path)


def test_bounds_hold_every_stored_voxel_of_a_box(volume: Volume) -> None:
    random = np.random.default_rng(5)
    size, shape = volume.image_size, volume.voxels.shape
    for _ in range(30):
        (z0, z1), (y0, y1), (x0, x1) = (sorted(random.integers(0, count, 2).tolist()) for count in shape)
        box = volume.image_bounds(Bounds(Voxel(x0, y0, z0), Voxel(x1, y1, z1)))
        for z, y, x in random.integers((z0, y0, x0), (z1 + 1, y1 + 1, x1 + 1), (20, 3)):
            at = volume.image_point(Point(float(x), float(y), float(z)))
            if 0 <= at.x <= size.x - 1 and 0 <= at.y <= size.y - 1:
                assert box.min.x - 0.51 <= at.x <= box.max.x + 0.51
                assert box.min.y - 0.51 <= at.y <= box.max.y + 0.51
                assert box.min.z - 1 <= at.z <= box.max.z + 1


def test_bounds_are_whole_voxels_of_the_stored_slices(volume: Volume) -> None:
    z, y, x = volume.voxels.shape
    everything = volume.image_bounds(Bounds(Voxel(0, 0, 0), Voxel(x - 1, y - 1, z - 1)))
    size = volume.image_size
    assert everything == Bounds(Voxel(0, 0, 0), Voxel(size.x - 1, size.y - 1, size.z - 1))


def test_a_point_on_a_slice_is_on_that_slice(volume: Volume) -> None:
    for index, (x, y, z) in enumerate(volume.stored.origins_xyz):
        corner = volume.image_point(Point(x + 3, y + 5, z))
        assert (corner.x, corner.y, corner.z) == pytest.approx((3, 5, index))


def test_an_upright_even_stack_is_left_as_it_is(tmp_path: Path) -> None:
    series(tmp_path)
    volume = read_volume(tmp_path)
    assert volume.stored is None
    assert volume.image_point(Point(1.5, 2.5, 3.5)) == Point(1.5, 2.5, 3.5)
    assert volume.image_size == Voxel(16, 14, 12)


def test_a_plane_that_lies_on_a_slice_is_that_slice(tmp_path: Path) -> None:
    """Where slices are lost the others keep their values."""
    files = series(tmp_path)
    whole = read_volume(tmp_path).voxels
    files[6].unlink()
    filled = read_volume(tmp_path).voxels
    np.testing.assert_array_equal(np.delete(filled, 6, axis=0), np.delete(whole, 6, axis=0))


def test_beyond_a_sheared_slice_there_is_air(tmp_path: Path) -> None:
    series(tmp_path, tilted(20))
    volume = read_volume(tmp_path)
    assert volume.voxels.shape[1] > volume.image_size.y
    assert set(np.unique(volume.voxels[volume.voxels < 0])) == {-1024}


def test_a_sheared_stack_stands_upright(tmp_path: Path) -> None:
    series(tmp_path, tilted(20))
    axes = read_volume(tmp_path).affine_lps[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
