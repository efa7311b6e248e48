"""DICOM files that gzip packed: read as if they were not, no further than they are wanted, and never without end."""

import gzip
import random
import shutil
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from openscans.errors import CorruptFile, OpenScansError
from openscans.progress import ignore_progress
from openscans.volumes import gzipped
from openscans.volumes.gzipped import open_dicom, open_unpacked
from openscans.volumes.headers import headers_of, read_header
from phantom.files import DicomStyle
from tests.corpus import packed, pixels
from tests.corpus.scene import series
from tests.reading import read_volume

WITHOUT_DELIMITER = pixels.without_delimiter(JPEGLSLossless)


def in_syntax(syntax: UID) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        series(folder, style=DicomStyle(transfer_syntax=syntax))
        return folder

    return make


def packed_file(folder: Path, content: bytes) -> Path:
    path = folder / "packed"
    path.write_bytes(gzip.compress(content))
    return path


def test_what_is_packed_is_read_as_it_was(tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    with open_dicom(packed_file(tmp_path, content)) as stream:
        assert stream.read(10) == content[:10]
        assert stream.seek(20_000) == stream.tell() == 20_000
        assert stream.read(5) == content[20_000:20_005]
        stream.seek(-5, 1)
        assert stream.read() == content[20_000:]
    with open_unpacked(packed_file(tmp_path, content), 10**6) as stream:
        assert stream.read() == content


@pytest.mark.parametrize("go", [lambda stream: stream.read(), lambda stream: stream.seek(10**9)], ids=["read", "seek"])
def test_nothing_is_unpacked_beyond_the_bound(tmp_path: Path, go: Callable[[BytesIO], object]) -> None:
    with open_dicom(packed_file(tmp_path, bytes(10**6)), most_bytes=1000) as stream, pytest.raises(CorruptFile):
        go(stream)


def test_a_file_is_closed_with_what_it_unpacks_to(tmp_path: Path) -> None:
    stream = open_dicom(packed_file(tmp_path, b"content"))
    stored = stream._stored
    stream.close()
    assert stored.closed


def test_a_header_says_the_same_packed_or_not(tmp_path: Path) -> None:
    file = series(tmp_path)[0]
    plain = read_header(file)
    file.write_bytes(gzip.compress(file.read_bytes()))
    again = read_header(file)
    assert again.series_uid == plain.series_uid
    assert again.slices[0].uid_location == plain.slices[0].uid_location


@pytest.mark.parametrize(
    "make",
    [in_syntax(DeflatedExplicitVRLittleEndian), in_syntax(RLELossless), pixels.enhanced_compressed, WITHOUT_DELIMITER],
    ids=["deflated", "RLE", "frames", "without a delimiter"],
)
def test_pixels_that_are_compressed_may_be_packed_too(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    plain = read_volume(path)
    for file in [*tmp_path.rglob("*")]:
        file.write_bytes(gzip.compress(file.read_bytes()))
    assert (read_volume(path).voxels == plain.voxels).all()


def test_a_file_that_lies_about_its_pixels_takes_little_memory(tmp_path: Path) -> None:
    path = packed.packed_without_end(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(OpenScansError):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_what_gzip_packed_that_is_no_dicom_is_passed_over(tmp_path: Path) -> None:
    series(tmp_path)
    packed_file(tmp_path, b"a table of numbers " * 1000)
    (tmp_path / "stump.gz").write_bytes(gzip.compress(bytes(1000))[:15])
    (tmp_path / "magic").write_bytes(gzipped.GZIP_MAGIC + b"and something else")
    assert read_volume(tmp_path).warnings == ()
    assert len(list(headers_of(sorted(tmp_path.iterdir()), ignore_progress))) == 12


def test_a_header_that_is_cut_is_damage_and_not_passed_over(tmp_path: Path) -> None:
    files = series(tmp_path)
    files[3].write_bytes(gzip.compress(files[3].read_bytes())[:300])
    shutil.copy(files[3], tmp_path / "copy")
    with pytest.raises(CorruptFile):
        read_volume(files[3])


def code_of(path: Path) -> str:
    """The code of the error with which ``path`` is refused; empty where it is read."""
    try:
        read_volume(path)
    except OpenScansError as error:
        return error.code
    return ""


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_changed_in_a_packed_file_it_is_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(5)
    files = packed.packed_series(tmp_path).iterdir()
    path = max(files)
    whole = path.read_bytes()
    for number in range(100):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content[: chance.randrange(len(content))] if number % 5 == 0 else content)
        assert code_of(path) in {"", "corrupt_file", "unsupported_file", "no_image", "unsupported_modality"}
