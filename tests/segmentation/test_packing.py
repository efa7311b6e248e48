"""A label map travels and comes back as it was, but for what is no vertebra."""

import json

import numpy as np
from pydantic import TypeAdapter

from openscans.segmentation import grids, resampling
from openscans.segmentation.packing import pack_labels, unpack_labels
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import PackedLabels, Voxel
from openscans.volumes import Volume

AFFINE_LPS = np.array([[0, 0, -0.8, 10], [0.9, 0, 0, -20], [0, 1.1, 0, 30], [0, 0, 0, 1.0]])
SIZE = Voxel(40, 50, 60)


def label_map() -> LabelMap:
    grid = grids.model_grid(AFFINE_LPS, grids.whole_box(SIZE), (1.5, 1.5, 1.5))
    labels = np.random.default_rng(0).integers(0, 4, grid.shape_zyx).astype(np.uint8)
    return LabelMap(labels, np.ones(labels.shape, np.float16), grid, {1: "L5", 2: "L4"})


def packed() -> PackedLabels:
    return pack_labels(label_map(), Volume(np.zeros((SIZE.z, SIZE.y, SIZE.x), np.int16), AFFINE_LPS))


def test_labels_come_back_on_their_grid() -> None:
    found, back = label_map(), unpack_labels(packed())
    np.testing.assert_array_equal(back.labels, np.where(found.labels < 3, found.labels, 0))
    assert (back.grid, back.names) == (found.grid, found.names)


def test_they_can_be_kept_as_json() -> None:
    adapter = TypeAdapter(PackedLabels)
    assert adapter.validate_json(adapter.dump_json(packed())) == packed()
    json.loads(adapter.dump_json(packed()))


def test_what_they_are_packed_with_places_them_in_the_volume() -> None:
    found, travelled = label_map(), packed()
    back = unpack_labels(travelled)
    volume = resampling.volume_labels(back.labels, back.grid, travelled.volume_size)
    expected = resampling.volume_labels(np.where(found.spine, found.labels, 0).astype(np.uint8), found.grid, SIZE)
    np.testing.assert_array_equal(volume, expected)
    np.testing.assert_array_equal(travelled.affine_lps, AFFINE_LPS)
