"""NRRD and MetaImage files, written by hand where SimpleITK would write what they lack: directions, units, packing."""

import bz2
import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from openscans import errors
from phantom.files import RAS_FROM_LPS
from tests.corpus.cases import Case, Read
from tests.corpus.scene import SHAPE, SPACING_MM, affine_of, image

UNKNOWN = "placement_unknown"


def _values() -> bytes:
    return np.rint(image(affine_of())).astype("<i2").tobytes()


def _vectors(affine: np.ndarray) -> str:
    return " ".join("(" + ",".join(map(repr, map(float, column))) + ")" for column in affine[:3, :3].T)


def _origin(affine: np.ndarray) -> str:
    return "(" + ",".join(map(repr, map(float, affine[:3, 3]))) + ")"


def _nrrd(path: Path, fields: Mapping[str, str], values: bytes | None = None) -> Path:
    """An axial image in LPS; ``fields`` change its header, and an empty one is left out."""
    pytest.importorskip("SimpleITK")
    columns, rows, slices = SHAPE[::-1]
    usual = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "space dimension": "",
        "sizes": f"{columns} {rows} {slices}",
        "space directions": _vectors(affine_of()),
        "space origin": _origin(affine_of()),
        "endian": "little",
        "encoding": "raw",
    }
    lines = [f"{name}: {value}" for name, value in {**usual, **fields}.items() if value]
    path.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + (_values() if values is None else values))
    return path


def plain(folder: Path) -> Path:
    return _nrrd(folder / "image.nrrd", {})


def packed(folder: Path) -> Path:
    return _nrrd(folder / "image.nrrd", {"encoding": "gzip"}, gzip.compress(_values()))


def packed_by_bzip2(folder: Path) -> Path:
    return _nrrd(folder / "image.nrrd", {"encoding": "bzip2"}, bz2.compress(_values()))


def right_anterior_superior(folder: Path) -> Path:
    affine = RAS_FROM_LPS @ affine_of()
    fields = {"space": "right-anterior-superior", "space directions": _vectors(affine), "space origin": _origin(affine)}
    return _nrrd(folder / "image.nrrd", fields)


def micrometres(folder: Path) -> Path:
    affine = np.diag([1000.0, 1000.0, 1000.0, 1.0]) @ affine_of()
    fields = {
        "space directions": _vectors(affine),
        "space origin": _origin(affine),
        "space units": '"um" "um" "um"',
    }
    return _nrrd(folder / "image.nrrd", fields)


def _scaled(folder: Path, *factors: float) -> Path:
    """The image with its columns, rows and slices so many times as far apart."""
    affine = affine_of() @ np.diag([*factors, 1.0])
    return _nrrd(folder / "image.nrrd", {"space directions": _vectors(affine)})


def micrometres_not_said(folder: Path) -> Path:
    return _scaled(folder, 1000, 1000, 1000)


def slices_of_a_millionth(folder: Path) -> Path:
    return _scaled(folder, 1, 1, 4e-7)


def units_that_differ(folder: Path) -> Path:
    return _nrrd(folder / "image.nrrd", {"space units": '"mm" "mm" "um"'})


def without_directions(folder: Path) -> Path:
    """Spacings are all that it tells."""
    spacings = " ".join(map(str, SPACING_MM))
    return _nrrd(folder / "image.nrrd", {"space": "", "space directions": "", "space origin": "", "spacings": spacings})


def without_anatomy(folder: Path) -> Path:
    """Directions, but of a space that is nobody's."""
    return _nrrd(folder / "image.nrrd", {"space": "3D-right-handed"})


def tilted(folder: Path) -> Path:
    cosine, sine = np.cos(np.radians(15)), np.sin(np.radians(15))
    affine = affine_of(((1, 0, 0), (0, cosine, -sine), (0, 0, 1)))
    fields = {"space directions": _vectors(affine), "space origin": _origin(affine)}
    return _nrrd(folder / "image.nrrd", fields, np.rint(image(affine)).astype("<i2").tobytes())


def _nrrd_of_volumes(folder: Path, count: int) -> Path:
    """As SimpleITK saves four dimensions, for whose space the format has no name."""
    columns = np.diag([*SPACING_MM, 1.0])
    fields = {
        "dimension": "4",
        "space": "",
        "space dimension": "4",
        "sizes": " ".join(map(str, (*SHAPE[::-1], count))),
        "space directions": " ".join("(" + ",".join(map(str, column)) + ")" for column in columns),
        "space origin": _origin(affine_of())[:-1] + ",0)",
        "kinds": "domain domain domain domain",
    }
    return _nrrd(folder / "image.seq.nrrd", fields, _values() * count)


def nrrd_of_one_volume(folder: Path) -> Path:
    return _nrrd_of_volumes(folder, 1)


def nrrd_of_two_volumes(folder: Path) -> Path:
    return _nrrd_of_volumes(folder, 2)


def _nrrd_sequence(folder: Path, kind: str, count: int = 1) -> Path:
    """As 3D Slicer saves a sequence: its first axis, of ``kind``, counts volumes and has no direction."""
    fields = {
        "dimension": "4",
        "sizes": " ".join(map(str, (count, *SHAPE[::-1]))),
        "space directions": "none " + _vectors(affine_of()),
        "kinds": f"{kind} domain domain domain",
    }
    values = np.repeat(np.frombuffer(_values(), "<i2"), count).tobytes()
    return _nrrd(folder / "image.seq.nrrd", fields, values)


def sequence_of_one(folder: Path) -> Path:
    return _nrrd_sequence(folder, "list")


def sequence_of_two(folder: Path) -> Path:
    return _nrrd_sequence(folder, "list", 2)


def sequence_in_time(folder: Path) -> Path:
    return _nrrd_sequence(folder, "time")


def _meta(path: Path, fields: Mapping[str, str], values: bytes | None = None) -> Path:
    """An axial image; ``fields`` change its header, and an empty one is left out."""
    pytest.importorskip("SimpleITK")
    usual = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": " ".join(map(repr, map(float, affine_of()[:3, 3]))),
        "ElementSpacing": " ".join(map(str, SPACING_MM)),
        "DimSize": " ".join(map(str, SHAPE[::-1])),
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    lines = [f"{name} = {value}" for name, value in {**usual, **fields}.items() if value]
    path.write_bytes("\n".join([*lines, ""]).encode() + (_values() if values is None else values))
    return path


def meta(folder: Path) -> Path:
    return _meta(folder / "image.mha", {})


def meta_of_a_long_line(folder: Path) -> Path:
    fields = {"DimSize": "32767 3 3", "ElementSpacing": "1.5 1.5 1.5"}
    return _meta(folder / "image.mha", fields, bytes(32767 * 3 * 3 * 2))


def meta_without_directions(folder: Path) -> Path:
    return _meta(folder / "image.mha", {"TransformMatrix": "", "Offset": ""})


def _meta_of_volumes(folder: Path, count: int) -> Path:
    identity = " ".join(map(str, np.eye(4, dtype=int).ravel()))
    fields = {
        "NDims": "4",
        "TransformMatrix": identity,
        "Offset": " ".join(map(repr, (*map(float, affine_of()[:3, 3]), 0.0))),
        "ElementSpacing": " ".join(map(str, (*SPACING_MM, 1))),
        "DimSize": " ".join(map(str, (*SHAPE[::-1], count))),
    }
    return _meta(folder / "image.mha", fields, _values() * count)


def meta_of_one_volume(folder: Path) -> Path:
    return _meta_of_volumes(folder, 1)


def meta_of_two_volumes(folder: Path) -> Path:
    return _meta_of_volumes(folder, 2)


def nrrd_named_mha(folder: Path) -> Path:
    return plain(folder).rename(folder / "image.mha")


def meta_named_nrrd(folder: Path) -> Path:
    return meta(folder).rename(folder / "image.nrrd")


def letter(folder: Path) -> Path:
    pytest.importorskip("SimpleITK")
    (folder / "image.nrrd").write_text("A letter that somebody renamed.\n" * 20, encoding="utf-8")
    return folder / "image.nrrd"


CASES = [
    Case("NRRD", "As 3D Slicer saves.", plain),
    Case("NRRD, gzip", "Packed.", packed),
    Case("NRRD, RAS", "Its millimetres grow to the right and to the front.", right_anterior_superior),
    Case("NRRD in micrometres", "Its space units say so.", micrometres),
    Case("NRRD of two units", "Slices in micrometres.", units_that_differ, errors.InconsistentGeometry),
    Case("NRRD, micrometres not said", "Voxels of 700 mm.", micrometres_not_said, errors.InconsistentGeometry),
    Case("NRRD, slices of a millionth", "1e-6 mm apart.", slices_of_a_millionth, errors.InconsistentGeometry),
    Case("NRRD without directions", "Spacings only.", without_directions, Read(warnings=(UNKNOWN,), scene=False)),
    Case("NRRD without anatomy", "3D-right-handed.", without_anatomy, Read(warnings=(UNKNOWN,))),
    Case(
        "NRRD, tilt of 15°",
        "Sheared slices are set upright.",
        tilted,
        Read(spacing_mm=(0.7, 0.8, 2.4148), warnings=("gantry_tilt_corrected",)),
    ),
    Case("NRRD, 4D of one volume", "The fourth dimension is dropped.", nrrd_of_one_volume),
    Case("NRRD, 4D", "Several volumes.", nrrd_of_two_volumes, errors.SeveralVolumes),
    Case("NRRD, sequence of one", "Its first axis counts volumes.", sequence_of_one),
    Case("NRRD, sequence of two", "Its first axis counts volumes.", sequence_of_two, errors.SeveralVolumes),
    Case("NRRD, with an axis of time", "SimpleITK refuses it.", sequence_in_time, errors.UnsupportedFile),
    Case("NRRD, bzip2", "Neither packed nor plain to SimpleITK.", packed_by_bzip2, errors.UnsupportedFile),
    Case("MetaImage", "As SimpleITK saves.", meta),
    Case(
        "MetaImage without directions",
        "Spacings only.",
        meta_without_directions,
        Read(warnings=(UNKNOWN,), scene=False),
    ),
    Case("MetaImage, a line", "32,767 columns.", meta_of_a_long_line, errors.InconsistentGeometry),
    Case("MetaImage, 4D of one volume", "The fourth dimension is dropped.", meta_of_one_volume),
    Case("MetaImage, 4D", "Several volumes.", meta_of_two_volumes, errors.SeveralVolumes),
    Case("NRRD, named .mha", "Content decides.", nrrd_named_mha),
    Case("MetaImage, named .nrrd", "Content decides.", meta_named_nrrd),
    Case("a letter, named .nrrd", "Neither.", letter, errors.CorruptFile),
]
