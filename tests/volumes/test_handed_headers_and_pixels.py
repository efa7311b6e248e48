"""Odd files from public reports: each is read as it should be, or refused for the right reason."""

from pathlib import Path

import numpy as np
import pytest

from openscans import errors
from tests.corpus.scene import SHAPE, values_at
from tests.reading import read_volume
from tests.shared_data import NOT_HERE, SHARED_DATA

FAULTS = SHARED_DATA / "faults"

READ = ("delimiter_missing", "htj2k", "modality_lut", "numbers_that_are_none", "spacing_as_text")
"""Synthetic ones that show the corpus's scene."""

REFUSED: dict[str, type[errors.OpenScansError]] = {
    "nested_sequences": errors.CorruptFile,
    "private_syntax": errors.UnsupportedTransferSyntax,
    "rescale_missing_in_some_slices": errors.CorruptFile,
}

pytestmark = pytest.mark.filterwarnings("ignore")


def handed(name: str) -> Path:
    folder = FAULTS / name / "data"
    if not folder.is_dir():
        pytest.skip(NOT_HERE)
    return folder


@pytest.mark.parametrize("name", READ)
def test_it_shows_what_lies_at_each_place(name: str) -> None:
    volume = read_volume(handed(name))
    assert volume.voxels.shape == SHAPE
    z, y, x = np.indices(SHAPE)
    places = np.stack([x, y, z], axis=-1) @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3]
    assert np.abs(volume.voxels - values_at(places)).max() <= 1
    assert volume.warnings == ()


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_its_own_error(name: str) -> None:
    with pytest.raises(errors.OpenScansError) as caught:
        read_volume(handed(name))
    assert type(caught.value) is REFUSED[name]


def test_real_pixels_that_nothing_closes_are_read() -> None:
    volume = read_volume(handed("real_delimiter_missing"))
    assert volume.voxels.shape == (3, 320, 320)
    assert (volume.voxels.min(), volume.voxels.max()) == (0, 819)
