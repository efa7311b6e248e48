"""Zips, as people and programs make them of images, and as nobody should."""

import shutil
import zipfile
from pathlib import Path

from openscans import errors
from tests import bad_files
from tests.corpus import folders, itk, nifti, packed
from tests.corpus.cases import Case
from tests.corpus.scene import series
from tests.zips import contents_of, lock, write_zip, zip_folder


def _zipped(folder: Path, made: Path) -> Path:
    """A zip of ``made``, a folder or a file in it, beside it."""
    top = made if made.is_dir() else made.parent
    return zip_folder(top, folder.with_name(f"{folder.name}.zip"))


def zipped_series(folder: Path) -> Path:
    series(folder)
    return _zipped(folder, folder)


def zipped_cd(folder: Path) -> Path:
    disk = folders.file_set(folder)
    (disk / "VIEWER.EXE").write_bytes(b"MZ" + bytes(5000))
    (disk / "AUTORUN.INF").write_text("[autorun]\nopen=VIEWER.EXE\n", encoding="utf-8")
    return _zipped(folder, disk)


def zipped_on_windows(folder: Path) -> Path:
    """Old programs there put backslashes between folders."""
    files = {f"C:\\Export\\{name}": content for name, content in contents_of(series(folder)[0].parent).items()}
    return write_zip(folder / "export.zip", files)


def zipped_study(folder: Path) -> Path:
    return _zipped(folder, folders.whole_study(folder))


def zipped_without_suffix(folder: Path) -> Path:
    return zipped_series(folder).rename(folder / "export")


def zipped_packed_files(folder: Path) -> Path:
    return _zipped(folder, packed.packed_series(folder))


def zipped_nifti(folder: Path) -> Path:
    (folder / "read me.txt").write_text("A scan.", encoding="utf-8")
    return _zipped(folder, nifti.plain(folder))


def zipped_pair(folder: Path) -> Path:
    return _zipped(folder, nifti.img_of_a_pair(folder))


def zipped_nrrd(folder: Path) -> Path:
    return _zipped(folder, itk.plain(folder))


def zipped_two_niftis(folder: Path) -> Path:
    shutil.copy(nifti.plain(folder), folder / "another.nii.gz")
    return _zipped(folder, folder)


def zipped_letters(folder: Path) -> Path:
    return _zipped(folder, bad_files.not_an_image(folder))


def zip_in_a_zip(folder: Path) -> Path:
    inner = zipped_series(folder)
    return write_zip(folder / "outer.zip", {"inner.zip": inner.read_bytes()})


def zip_under_a_password(folder: Path) -> Path:
    return lock(zipped_series(folder))


def zip_in_another_packing(folder: Path) -> Path:
    series(folder)
    return write_zip(folder / "export.zip", contents_of(folder), compression=zipfile.ZIP_LZMA)


def zip_cut_short(folder: Path) -> Path:
    path = zipped_series(folder)
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def zip_with_a_flipped_byte(folder: Path) -> Path:
    path = zipped_series(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def zip_bomb(folder: Path) -> Path:
    """Nulls, which deflate shrinks to a thousandth."""
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.dcm", "w") as out:
        for _ in range(300):
            out.write(bytes(2**20))
    return path


CASES = [
    Case("zip of a series", "Unpacked for as long as it is read.", zipped_series),
    Case("zip of a CD", "An index, folders, a viewer; the images are found.", zipped_cd),
    Case("zip from Windows", "Backslashes between its folders.", zipped_on_windows),
    Case("zip of a study", "The series with the most slices is read, as of a folder.", zipped_study),
    Case("zip without its suffix", "Told by its content.", zipped_without_suffix),
    Case("zip of packed files", "DICOM files that gzip packed before.", zipped_packed_files),
    Case("zip of a NIfTI file", "The one image in it.", zipped_nifti),
    Case("zip of a NIfTI pair", "A .hdr and its .img.", zipped_pair),
    Case("zip of an NRRD file", "The one image in it.", zipped_nrrd),
    Case("zip of two NIfTI files", "Nothing tells which is meant.", zipped_two_niftis, errors.SeveralVolumes),
    Case("zip of letters", "No image is in it.", zipped_letters, errors.UnsupportedFile),
    Case("zip in a zip", "Only one is unpacked.", zip_in_a_zip, errors.UnsupportedFile),
    Case("zip under a password", "It is said so.", zip_under_a_password, errors.UnsupportedFile),
    Case(
        "zip packed by LZMA", "Deflate is read, and what is not packed.", zip_in_another_packing, errors.UnsupportedFile
    ),
    Case("zip cut short", "A download that stopped.", zip_cut_short, errors.CorruptFile),
    Case("zip with a flipped byte", "Its checksum tells.", zip_with_a_flipped_byte, errors.CorruptFile),
    Case("zip bomb", "Unpacks to a thousand times its size.", zip_bomb, errors.CorruptFile),
]
