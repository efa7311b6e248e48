"""Odd files of other people's reports, where they lie beside the project: each has its README's right outcome."""

from dataclasses import dataclass

import pytest

from openscans import errors
from openscans.types import WarningCode
from openscans.volumes import assumed_ct_warnings
from tests.reading import read_volume
from tests.shared_data import NOT_HERE, SHARED_DATA

FOLDER = SHARED_DATA / "faults"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=NOT_HERE)


@dataclass(frozen=True)
class Right:
    """``warnings``: the codes that say what is odd, all of them."""

    size: tuple[int, int, int] = (16, 14, 12)
    spacing_mm: tuple[float, float, float] = (0.7, 0.8, 2.5)
    warnings: tuple[WarningCode, ...] = ()


FILES: dict[str, Right] = {
    "gz_in_name_only/data/image.nii.gz": Right(),
    "gz_without_its_name/data/image.nii": Right(),
    "img_of_a_pair/data/image.img": Right(),
    "micrometres/data/um.nii.gz": Right(),
    "sheared_nifti/data/image.nii.gz": Right(
        spacing_mm=(0.7, 0.8, 2.4148), warnings=(WarningCode.GANTRY_TILT_CORRECTED,)
    ),
    "nrrd_of_one_volume/data/one.seq.nrrd": Right(),
    "nrrd_without_directions/data/n.nrrd": Right(warnings=(WarningCode.PLACEMENT_UNKNOWN,)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_its_readme_says(name: str) -> None:
    if name.endswith(".nrrd"):
        pytest.importorskip("SimpleITK")
    right, volume = FILES[name], read_volume(FOLDER / name)
    size, spacing = volume.image_size, volume.image_spacing_mm
    assert (size.x, size.y, size.z) == right.size
    assert (spacing.x, spacing.y, spacing.z) == pytest.approx(right.spacing_mm, abs=1e-3)
    assert tuple(warning.code for warning in volume.warnings) == right.warnings


def test_bzip2_is_refused_by_name() -> None:
    pytest.importorskip("SimpleITK")
    with pytest.raises(errors.UnsupportedFile, match="bzip2"):
        read_volume(FOLDER / "nrrd_bz2" / "BallBinary30x30x30_bz2.nrrd")


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("faults/offset_nifti/data/image.nii.gz", [WarningCode.MODALITY_ASSUMED]),
        ("faults/unit_nifti/data/u.nii.gz", [WarningCode.MODALITY_ASSUMED]),
        ("mr_abdomen_small/mr.nii.gz", [WarningCode.MODALITY_ASSUMED]),
        ("ct_abdomen_small/ct.nii.gz", []),
    ],
)
def test_values_that_are_no_hu_are_told_where_nobody_said_that_it_is_a_ct(name: str, codes: list[WarningCode]) -> None:
    voxels = read_volume(SHARED_DATA / name).voxels
    assert [warning.code for warning in assumed_ct_warnings(voxels)] == codes
