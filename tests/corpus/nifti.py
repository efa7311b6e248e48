"""NIfTI files: names that mislead, pairs, two placements, number formats, shapes, damage."""

import bz2
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from openscans import errors
from phantom.files import RAS_FROM_LPS, reorient, write_nifti
from tests import bad_files
from tests.corpus.cases import Case, Read
from tests.corpus.scene import SHAPE, SPACING_MM, affine_of, image

LIAR_BYTES = 700_000_000
"""Deflate packs 700 GB into so many; a file of holes is as long and takes no room."""


def _image(dtype: type[np.generic] = np.int16) -> nib.Nifti1Image:
    values = image(affine_of())
    whole = np.issubdtype(dtype, np.integer)
    stored = (np.rint(values) if whole else values).astype(dtype)
    return nib.Nifti1Image(stored.transpose(2, 1, 0), RAS_FROM_LPS @ affine_of())


def _saved(folder: Path, made: nib.Nifti1Image, name: str = "image.nii.gz") -> Path:
    nib.save(made, folder / name)
    return folder / name


def plain(folder: Path) -> Path:
    return _saved(folder, _image())


def packed_in_name_only(folder: Path) -> Path:
    """As browsers leave what they unpacked on the way."""
    return _saved(folder, _image(), "image.nii").rename(folder / "image.nii.gz")


def packed_without_its_name(folder: Path) -> Path:
    return _saved(folder, _image()).rename(folder / "image.nii")


def _pair(folder: Path, *, header: str = "image.hdr", voxels: str = "image.img") -> Path:
    """A pair under these names, packed by neither; the voxels' file is returned."""
    nib.save(nib.Nifti1Pair.from_image(_image()), folder / "made.img")
    (folder / "made.hdr").rename(folder / header)
    return (folder / "made.img").rename(folder / voxels)


def img_of_a_pair(folder: Path) -> Path:
    return _pair(folder)


def hdr_of_a_pair(folder: Path) -> Path:
    return _pair(folder).with_name("image.hdr")


def packed_img_of_a_pair(folder: Path) -> Path:
    voxels = _pair(folder, voxels="image.img.gz")
    voxels.write_bytes(gzip.compress(voxels.read_bytes()))
    return voxels


def pair_packed_in_name_only(folder: Path) -> Path:
    return _pair(folder, header="IMAGE.HDR.GZ", voxels="IMAGE.IMG.GZ")


def img_without_header(folder: Path) -> Path:
    voxels = _pair(folder)
    voxels.with_name("image.hdr").unlink()
    return voxels


def hdr_without_img(folder: Path) -> Path:
    _pair(folder).unlink()
    return folder / "image.hdr"


def packed_by_bzip2(folder: Path) -> Path:
    path = _saved(folder, _image(), "image.nii")
    path.write_bytes(bz2.compress(path.read_bytes()))
    return path


def _in_units(folder: Path, unit: str, per_mm: float) -> Path:
    """``per_mm``: how many of what the header calls ``unit`` make a millimetre, as the numbers beside it have it."""
    made = _image()
    scaled = nib.Nifti1Image(np.asanyarray(made.dataobj), np.diag([per_mm, per_mm, per_mm, 1.0]) @ made.affine)
    scaled.header.set_xyzt_units(unit)
    return _saved(folder, scaled)


def micrometres(folder: Path) -> Path:
    return _in_units(folder, "micron", 1000.0)


def metres(folder: Path) -> Path:
    return _in_units(folder, "meter", 0.001)


def micrometres_in_name_only(folder: Path) -> Path:
    return _in_units(folder, "micron", 1.0)


def metres_in_name_only(folder: Path) -> Path:
    return _in_units(folder, "meter", 1.0)


def micrometres_not_said(folder: Path) -> Path:
    return _in_units(folder, "mm", 1000.0)


def metres_not_said(folder: Path) -> Path:
    return _in_units(folder, "unknown", 0.001)


def _empty(folder: Path, shape_xyz: tuple[int, int, int], affine_ras: np.ndarray) -> Path:
    """Nothing but air, which packs to some kilobytes."""
    return _saved(folder, nib.Nifti1Image(np.full(shape_xyz, -1000, np.int16), affine_ras))


def cube_of_five_metres(folder: Path) -> Path:
    return _empty(folder, (48, 48, 48), np.diag([100.0, 100.0, 100.0, 1.0]))


def long_line(folder: Path) -> Path:
    """As many voxels as the format can count along one axis."""
    return _empty(folder, (3, 3, 32767), np.diag([1.0, 1.0, 1.0, 1.0]))


def coarse(folder: Path) -> Path:
    """As large as a body."""
    return _empty(folder, (16, 14, 50), np.diag([30.0, 30.0, 40.0, 1.0]))


def sheared_line(folder: Path) -> Path:
    """Four columns and rows, of which each slice lies almost its own thickness beside the last."""
    sheared = np.diag([1.0, 1.0, 1.0, 1.0])
    sheared[1, 2] = 0.9
    return _empty(folder, (4, 4, 400), sheared)


def sheared_far(folder: Path) -> Path:
    """By 300 mm from slice to slice."""
    sheared = np.diag([1.0, 1.0, 301.0, 1.0])
    sheared[1, 2] = 300.0
    return _empty(folder, (32, 32, 32), sheared)


def without_placement(folder: Path) -> Path:
    return _saved(folder, nib.Nifti1Image(np.asanyarray(_image().dataobj), None, _with_spacing()))


def _with_spacing() -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE[::-1])
    header.set_zooms(SPACING_MM)
    return header


def _along(folder: Path, *directions: tuple[float, float, float]) -> Path:
    """``directions`` of growing column, row and slice in LPS, at right angles or not."""
    affine = affine_of(directions)
    values = np.rint(image(affine)).astype(np.int16)
    return _saved(folder, nib.Nifti1Image(values.transpose(2, 1, 0), RAS_FROM_LPS @ affine))


def _at(angle_deg: float) -> tuple[float, float]:
    return float(np.cos(np.radians(angle_deg))), float(np.sin(np.radians(angle_deg)))


def tilted(folder: Path) -> Path:
    """As dcm2niix writes a tilted CT before it sets it upright itself."""
    cosine, sine = _at(15)
    return _along(folder, (1, 0, 0), (0, cosine, -sine), (0, 0, 1))


def tilted_from_the_left(folder: Path) -> Path:
    """Sheared sideways, and left-handed: the first index runs to the right."""
    cosine, sine = _at(-25)
    return _along(folder, (-cosine, 0, sine), (0, 1, 0), (0, 0, 1))


def sheared_within_slices(folder: Path) -> Path:
    cosine, sine = _at(10)
    return _along(folder, (1, 0, 0), (sine, cosine, 0), (0, 0, 1))


def sheared_a_little(folder: Path) -> Path:
    """What a registration leaves."""
    cosine, sine = _at(0.5)
    return _along(folder, (1, 0, 0), (sine, cosine, 0), (0, 0, 1))


def sheared_too_far(folder: Path) -> Path:
    cosine, sine = _at(60)
    return _along(folder, (1, 0, 0), (0, cosine, -sine), (0, 0, 1))


def turned(folder: Path) -> Path:
    """First index to the back, second to the feet, third to the right."""
    write_nifti(folder / "turned.nii", *reorient(np.rint(image(affine_of())).astype(np.int16), affine_of(), "PIR"))
    return folder / "turned.nii"


def forms_that_differ(folder: Path) -> Path:
    """A qform that mirrors the image."""
    made = _image()
    made.set_qform(np.diag([-1.0, 1.0, 1.0, 1.0]) @ made.affine, code=1)
    made.set_sform(RAS_FROM_LPS @ affine_of(), code=1)
    return _saved(folder, made)


def qform_only(folder: Path) -> Path:
    made = _image()
    made.set_qform(RAS_FROM_LPS @ affine_of(), code=1)
    made.set_sform(None, code=0)
    return _saved(folder, made)


def scaled(folder: Path) -> Path:
    made = nib.Nifti1Image(np.rint(image(affine_of()).transpose(2, 1, 0) * 4).astype(np.int16), _image().affine)
    made.header.set_slope_inter(0.25, 0)
    return _saved(folder, made)


def float64(folder: Path) -> Path:
    return _saved(folder, _image(np.float64))


def big_endian(folder: Path) -> Path:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    little = _image()
    return _saved(folder, nib.Nifti1Image(np.asanyarray(little.dataobj), little.affine, header), "image.nii")


def five_dimensional(folder: Path) -> Path:
    return _saved(folder, nib.Nifti1Image(np.zeros((8, 8, 8, 1, 3), np.int16), np.eye(4)))


def five_dimensions_of_one(folder: Path) -> Path:
    made = _image()
    return _saved(folder, nib.Nifti1Image(np.asanyarray(made.dataobj)[..., None, None], made.affine))


def _with_header(folder: Path, **fields: object) -> Path:
    """A plain file whose header is changed where no library would write it so."""
    path = _saved(folder, _image(), "image.nii")
    whole = path.read_bytes()
    header = np.frombuffer(whole[:348], nib.nifti1.header_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.tobytes() + whole[348:])
    return path


def zero_spacing(folder: Path) -> Path:
    return _with_header(folder, pixdim=(1, 0.7, 0, 2.5, 0, 0, 0, 0), sform_code=0, qform_code=0)


def flattened_affine(folder: Path) -> Path:
    """Two axes point the same way."""
    return _with_header(folder, srow_x=(1, 1, 0, 0), srow_y=(0, 0, 0, 0), srow_z=(0, 0, 1, 0), sform_code=1)


def affine_of_nan(folder: Path) -> Path:
    return _with_header(folder, srow_x=(np.nan, 0, 0, 0), sform_code=1)


def voxels_beyond(folder: Path) -> Path:
    path = _with_header(folder, vox_offset=3e9)
    (folder / "image.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    return folder / "image.nii.gz"


def bomb(folder: Path) -> Path:
    """Long enough to hold the 700 GB that its header claims."""
    header = nib.Nifti1Header()
    header.set_data_shape((32767, 32767, 330))
    header.set_data_dtype(np.int16)
    header["pixdim"][1:4] = 0.05, 0.05, 1
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = folder / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    with path.open("r+b") as stream:
        stream.truncate(LIAR_BYTES)
    return path


def long_tail(folder: Path) -> Path:
    """A whole image, and 200 MB of zeros packed behind it."""
    path = plain(folder)
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**20)) * 200)
    return path


CASES = [
    Case("NIfTI", "Voxels are counted as they are stored.", plain),
    Case(
        "NIfTI, turned",
        "Indices stay those of the file.",
        turned,
        Read(size=(14, 12, 16), spacing_mm=(0.8, 2.5, 0.7)),
    ),
    Case("sform and qform differ", "The sform counts.", forms_that_differ, Read(warnings=("sform_qform_differ",))),
    Case("qform only", "The qform counts where there is no sform.", qform_only),
    Case("named .nii.gz, not packed", "As browsers leave it.", packed_in_name_only),
    Case("named .nii, packed", "Content decides.", packed_without_its_name),
    Case("pair, its .hdr", "The voxels lie beside.", hdr_of_a_pair),
    Case("pair, its .img", "The header lies beside.", img_of_a_pair),
    Case("pair, its .img.gz", "Only the voxels are packed.", packed_img_of_a_pair),
    Case("pair, packed in name only", "IMAGE.HDR.GZ and IMAGE.IMG.GZ.", pair_packed_in_name_only),
    Case("NIfTI in micrometres", "xyzt_units says so.", micrometres),
    Case("NIfTI in metres", "xyzt_units says so.", metres),
    Case("micrometres in name only", "0.7 of them.", micrometres_in_name_only, errors.InconsistentGeometry),
    Case("metres in name only", "0.7 of them.", metres_in_name_only, errors.InconsistentGeometry),
    Case("micrometres not said", "Voxels of 700 mm.", micrometres_not_said, errors.InconsistentGeometry),
    Case("metres not said", "Voxels of 0.0007 mm.", metres_not_said, errors.InconsistentGeometry),
    Case("NIfTI of 5 m", "48³ voxels of 100 mm.", cube_of_five_metres, errors.InconsistentGeometry),
    Case("NIfTI, coarse", "Voxels of 30 × 30 × 40 mm.", coarse, errors.InconsistentGeometry),
    Case("NIfTI, a line", "32,767 slices of 3 × 3 pixels.", long_line, errors.InconsistentGeometry),
    Case("NIfTI, a sheared line", "400 slices of 4 × 4 pixels, aslant.", sheared_line, errors.InconsistentGeometry),
    Case("NIfTI, sheared by 300 mm", "From slice to slice.", sheared_far, errors.InconsistentGeometry),
    Case(
        "no placement",
        "sform and qform are 0.",
        without_placement,
        Read(warnings=("placement_unknown",), scene=False),
    ),
    Case(
        "NIfTI, tilt of 15°",
        "Sheared slices are set upright.",
        tilted,
        Read(spacing_mm=(0.7, 0.8, 2.4148), warnings=("gantry_tilt_corrected",)),
    ),
    Case(
        "NIfTI, sheared sideways by 25°",
        "To the right, in left-handed indices.",
        tilted_from_the_left,
        Read(spacing_mm=(0.7, 0.8, 2.2658), warnings=("gantry_tilt_corrected",)),
    ),
    Case(
        "NIfTI, sheared within slices",
        "Columns and rows 80° apart.",
        sheared_within_slices,
        Read(warnings=("sheared_axes",)),
    ),
    Case("NIfTI, sheared by 0.5°", "What a registration leaves.", sheared_a_little),
    Case("NIfTI, sheared by 60°", "Beyond any gantry.", sheared_too_far, errors.InconsistentGeometry),
    Case("scl_slope", "Stored fourfold, with a slope of 0.25.", scaled),
    Case("float64", "With fractions.", float64),
    Case("NIfTI, big endian", "From other processors.", big_endian),
    Case("NIfTI, 5D of one volume", "Dimensions of one are dropped.", five_dimensions_of_one),
    Case("gzip with a long tail", "Only what the header names is unpacked.", long_tail),
    Case("gzip that ends early", "Half a file.", bad_files.truncated_nifti, errors.CorruptFile),
    Case("NIfTI that ends early", "Not packed.", bad_files.truncated_plain_nifti, errors.CorruptFile),
    Case(".img without .hdr", "Voxels that nothing describes.", img_without_header, errors.UnsupportedFile),
    Case(".hdr without .img", "A header of nothing.", hdr_without_img, errors.CorruptFile),
    Case("NIfTI, bzip2", "Whatever its name.", packed_by_bzip2, errors.UnsupportedFile),
    Case("NIfTI, 2D", "One picture.", bad_files.flat_nifti, errors.TooFewSlices),
    Case("NIfTI, 4D", "Several volumes.", bad_files.four_dimensional_nifti, errors.SeveralVolumes),
    Case("NIfTI, 5D", "Several volumes.", five_dimensional, errors.SeveralVolumes),
    Case("zero spacing", "A pixdim of 0, and no affine.", zero_spacing, errors.InconsistentGeometry),
    Case("affine that is flat", "Two axes point the same way.", flattened_affine, errors.InconsistentGeometry),
    Case("affine of NaN", "No place.", affine_of_nan, errors.InconsistentGeometry),
    Case("affine with a zero column", "No place.", bad_files.nifti_without_place, errors.InconsistentGeometry),
    Case("colours", "RGB voxels.", bad_files.colour_nifti, errors.UnsupportedFile),
    Case("NaN voxels", "No HU.", bad_files.nifti_with_nan, errors.CorruptFile),
    Case("claims 70 TB", "More than deflate can hold.", bad_files.nifti_that_claims_too_much, errors.CorruptFile),
    Case("bomb", "A .nii.gz that would unpack to 700 GB.", bomb, errors.OutOfMemory),
    Case("voxels beyond", "A .nii.gz whose voxels begin at 3 GB.", voxels_beyond, errors.CorruptFile),
]
