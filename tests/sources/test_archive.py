"""Zips: whatever they say, they are unpacked into the folder that is given, under other names, or refused."""

import gzip
import random
import struct
import zipfile
from pathlib import Path

import pytest

from openscans.errors import Cancelled, CorruptFile, DiskFull, FolderTooLarge, OpenScansError, UnsupportedFile
from openscans.sources import archive
from openscans.sources.archive import MOST_BYTES, MOST_FILES, is_zip, number_of, open_entry, unpack
from openscans.system.files import RESERVE_BYTES
from openscans.system.zip_files import LARGEST_DIRECTORY_BYTES, open_zip
from tests.corpus.scene import series
from tests.small_disks import disk_of
from tests.zips import add_link, claim, contents_of, lock, write_zip

SLICE = bytes(128) + b"DICM" + b"image " * 100
"""Begins like a DICOM file, which is all that is asked here."""

NIFTI = bytes(344) + b"n+1\0" + bytes(1000)

HOSTILE_NAMES = [
    "../../outside",
    "/tmp/outside",
    "..\\..\\outside",
    "C:\\outside",
    "\\\\host\\share\\outside",
    "folder/../../outside",
    "con",
    "outside\0.dcm",
    "Doe^John/1947",
    "." * 200,
    "deep/" * 60 + "outside",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home/private"


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_leads_nowhere_and_is_not_kept(tmp_path: Path, folder: Path, name: str) -> None:
    path = write_zip(tmp_path / "zip", {name: SLICE})
    found = unpack(path, folder)
    assert [file.read_bytes() for file in found.iterdir()] == [SLICE]
    assert names_below(tmp_path) == {"zip", "00000"}


def test_files_of_one_name_are_all_unpacked(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"IM0001": SLICE + b"1", "IM0002": SLICE + b"2"})
    path.write_bytes(path.read_bytes().replace(b"IM0002", b"IM0001"))
    assert {file.read_bytes()[-1:] for file in unpack(path, folder).iterdir()} == {b"1", b"2"}


def test_links_and_what_is_no_image_stay_in_the_zip(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"IM1": SLICE, "viewer.exe": b"MZ" + bytes(900), "empty": b"", "folder/": b""})
    add_link(path, "IM2", "/etc/passwd")
    assert names_below(unpack(path, folder)) == {"00000"}


@pytest.mark.parametrize(
    "header",
    [
        b"ObjectType = Image\nNDims = 3\nElementDataFile = /etc/passwd\n",
        b"NDims = 3\nElementDataFile = LOCAL\nElementDataFile = /etc/passwd\n",
        b"NDims = 3\n  ElementDataFile = /etc/passwd\nElementDataFile = LOCAL\n",
        b"NDims = 3\nComment = " + b"x" * 70_000 + b"\nElementDataFile = /etc/passwd\n",
        b"NRRD0004\ntype: short\ndata file: /etc/passwd\n\n",
        b"NRRD0004\r\ntype: short\r\ndatafile: ../image.raw\r\n\r\n",
        b"NRRD0004\n#" + b"x" * 70_000 + b"\ndata file: /etc/passwd\n\n",
    ],
)
def test_a_header_that_names_another_file_is_not_unpacked(tmp_path: Path, folder: Path, header: bytes) -> None:
    path = write_zip(tmp_path / "zip", {"image.mhd": header, "image.raw": bytes(5000)})
    with pytest.raises(UnsupportedFile):
        unpack(path, folder)


def test_a_metaimage_in_one_file_is_unpacked(tmp_path: Path, folder: Path) -> None:
    content = b"ObjectType = Image\nNDims = 3\nElementDataFile = LOCAL\n" + bytes(100)
    found = unpack(write_zip(tmp_path / "zip", {"Doe.mha": content}), folder)
    assert (found.name, found.read_bytes()) == ("00000.mha", content)


def test_dicom_goes_before_other_images(tmp_path: Path, folder: Path) -> None:
    found = unpack(write_zip(tmp_path / "zip", {"mask.nii": NIFTI, "IM1": SLICE}), folder)
    assert names_below(found) == {"00000.nii", "00001"}


def test_what_was_unpacked_is_unpacked_again_only_where_the_zip_changed(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"IM1": SLICE})
    first = unpack(path, folder)
    (first / "mark").touch()
    assert unpack(path, folder) == first
    assert (first / "mark").exists()
    write_zip(path, {"IM1": SLICE + b"another", "IM2": SLICE})
    assert names_below(unpack(path, folder)) == {"00000", "00001"}


def test_an_entry_is_found_again_by_the_name_that_it_was_given(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"letter": b"Dear", "IM1": SLICE, "IM2": SLICE + b"2", "a.nii": NIFTI})
    with open_zip(path) as opened:
        for file in unpack(path, folder).iterdir():
            with open_entry(opened, number_of(file)) as stream:
                assert stream.read() == file.read_bytes()


def test_a_zip_is_told_by_its_content_but_for_the_preamble_of_a_dicom_file(tmp_path: Path) -> None:
    assert is_zip(write_zip(tmp_path / "scan.nii", {"IM1": SLICE}))
    assert is_zip(write_zip(tmp_path / "empty", {}))
    (tmp_path / "slice.zip").write_bytes(b"PK\x03\x04" + SLICE[4:])
    assert not is_zip(tmp_path / "slice.zip")
    assert not is_zip(tmp_path)
    assert not is_zip(tmp_path / "missing")


def lying(path: Path, file_size: int) -> Path:
    """Says that its file is so large."""
    content = bytearray(write_zip(path, {"IM1": SLICE}).read_bytes())
    struct.pack_into("<I", content, content.find(b"PK\x01\x02") + 24, file_size)
    path.write_bytes(content)
    return path


def test_a_file_that_is_said_to_be_longer_than_it_is_is_as_long_as_it_is(tmp_path: Path, folder: Path) -> None:
    found = unpack(lying(tmp_path / "zip", 10_000_000), folder)
    assert (found / "00000").read_bytes() == SLICE


def test_a_file_that_is_said_to_be_shorter_than_it_is_is_damage(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CorruptFile):
        unpack(lying(tmp_path / "zip", 200), folder)


def test_more_than_any_study_is_refused_before_anything_is_written(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"IM1": SLICE, "IM2": SLICE})
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("IM3", b"")
        made.filelist[0].file_size = MOST_BYTES
    with pytest.raises(FolderTooLarge, match="GB"):
        unpack(path, folder)
    assert not folder.exists()


def test_more_files_than_a_folder_may_hold_are_refused(tmp_path: Path, folder: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as made:
        for number in range(MOST_FILES + 1):
            made.writestr(str(number), b"x")
    with pytest.raises(FolderTooLarge, match="50000"):
        unpack(tmp_path / "zip", folder)
    assert not folder.exists()


def test_a_list_of_entries_that_would_fill_the_memory_is_not_read(tmp_path: Path, folder: Path) -> None:
    path = claim(write_zip(tmp_path / "zip", {"IM1": SLICE}), directory_bytes=LARGEST_DIRECTORY_BYTES + 1)
    with path.open("r+b") as stream:
        end = stream.read()[-22:]
        # A file of holes, so that a list of that length could be in it.
        stream.seek(2 * LARGEST_DIRECTORY_BYTES)
        stream.write(end)
    with pytest.raises(CorruptFile):
        unpack(path, folder)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path, folder: Path) -> None:
    """As bombs are made that are small however they are counted."""
    content = write_zip(tmp_path / "zip", {"IM1": SLICE, "IM2": SLICE}).read_bytes()
    second = content.rfind(b"PK\x01\x02")
    # The second entry's place becomes the first's.
    (tmp_path / "zip").write_bytes(content[: second + 42] + bytes(4) + content[second + 46 :])
    with pytest.raises(CorruptFile):
        unpack(tmp_path / "zip", folder)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_locked_or_packed_otherwise_is_refused(tmp_path: Path, folder: Path, compression: int) -> None:
    path = write_zip(tmp_path / "zip", {"IM1": SLICE}, compression=compression)
    with pytest.raises(UnsupportedFile, match=r"password|method"):
        unpack(lock(path) if compression == zipfile.ZIP_DEFLATED else path, folder)
    assert names_below(folder) == set()


def test_zips_of_zips_are_not_followed(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"IM1": SLICE})
    for _ in range(3):
        path.write_bytes(write_zip(tmp_path / "outer", {"inner.zip": path.read_bytes()}).read_bytes())
    with pytest.raises(UnsupportedFile):
        unpack(path, folder)
    assert names_below(folder) == set()


def test_who_stops_it_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {f"IM{number}": SLICE for number in range(5)})
    told = iter(range(7))

    def report(done: int, total: int) -> None:
        if next(told) == 6:
            assert names_below(folder)
            raise Cancelled

    with pytest.raises(Cancelled):
        unpack(path, folder, report)
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_had_begun_is_begun_again(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "zip", {"IM1": SLICE})
    whole = unpack(path, folder)
    whole.rename(whole.with_name(f"{whole.name}.new"))
    (folder / f"{whole.name}.new/00007").write_bytes(b"half")
    assert names_below(unpack(path, folder)) == {"00000"}


def test_where_there_is_no_room_nothing_is_begun(tmp_path: Path) -> None:
    with disk_of(RESERVE_BYTES + 500_000, tmp_path / "disk") as disk:
        path = write_zip(tmp_path / "zip", {f"IM{number}": SLICE * 1000 for number in range(2)})
        with pytest.raises(DiskFull, match="MB are needed"):
            unpack(path, disk / "private")
        assert names_below(disk) == set()


def test_a_disk_that_becomes_full_meanwhile_is_told_and_left_clean(tmp_path: Path) -> None:
    with disk_of(RESERVE_BYTES + 4_000_000, tmp_path / "disk") as disk:
        images = {f"IM{number}": SLICE + random.Random(number).randbytes(1_000_000) for number in range(3)}
        path = write_zip(tmp_path / "zip", images)

        def report(done: int, total: int) -> None:
            if not (disk / "other").exists():
                (disk / "other").write_bytes(bytes(RESERVE_BYTES + 2_000_000))

        with pytest.raises(DiskFull):
            unpack(path, disk / "private", report)
        assert names_below(disk) == {"other"}


def test_a_zip_in_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("a file", encoding="utf-8")
    with pytest.raises(OpenScansError, match="The zip, or the folder"):
        unpack(write_zip(tmp_path / "zip", {"IM1": SLICE}), tmp_path / "private/deep")


TYPED = {"", "corrupt_file", "unsupported_file", "several_volumes", "invalid_request"}


def code_of(path: Path, folder: Path) -> str:
    """The code of the error with which the zip is refused; empty where it is unpacked."""
    try:
        unpack(path, folder)
    except OpenScansError as error:
        return error.code
    return ""


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_changed_in_a_zip_it_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    series(tmp_path / "series", shape=(3, 8, 8))
    files = {**contents_of(tmp_path / "series"), "a.nii.gz": gzip.compress(NIFTI), "letter": b"Dear"}
    whole = write_zip(tmp_path / "zip", files).read_bytes()
    directory = whole.index(b"PK\x01\x02")
    for number in range(60):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            # Most in what tells names, places and sizes.
            at = chance.randrange(directory if chance.random() < 0.7 else 0, len(content))
            content[at] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
        (tmp_path / "zip").write_bytes(
            content[: chance.randint(directory, len(content))] if number % 9 == 0 else content
        )
        assert code_of(tmp_path / "zip", tmp_path / f"out{number}") in TYPED


def test_no_error_names_the_zip_or_what_is_in_it(tmp_path: Path, folder: Path) -> None:
    path = write_zip(tmp_path / "Doe John.zip", {"Doe John/letter": b"Dear John"})
    for broken in (path.read_bytes(), path.read_bytes()[:-10]):
        path.write_bytes(broken)
        with pytest.raises(OpenScansError) as caught:
            archive.unpack(path, folder)
        assert "Doe" not in caught.value.message + caught.value.hint
