"""More than one thing under one series UID, and one volume under several, or in several folders."""

import shutil
from pathlib import Path

import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from openscans import errors
from phantom.files import DicomStyle
from tests.bad_files import edit
from tests.corpus.cases import Case, Read
from tests.corpus.geometry import tilted
from tests.corpus.scene import SHAPE, Affine, affine_of, at_heights, series
from tests.enhanced import merged

CORONAL = ((1, 0, 0), (0, 0, -1), (0, 1, 0))
SAGITTAL = ((0, 1, 0), (0, 0, -1), (1, 0, 0))


def _beside(folder: Path, affine_lps: Affine, uid: str, **attributes: object) -> list[Path]:
    """A stack of a few slices under the series UID ``uid``, in files of its own suffix."""
    slices = attributes.pop("slices", 1)
    size = attributes.pop("size", SHAPE[1:])
    style = DicomStyle(series_uid=uid, suffix=f".{len(list(folder.iterdir()))}")
    files = series(folder, affine_lps, style, shape=(slices, *size))
    for file in files:
        edit(file, **attributes)
    return files


def _plain(folder: Path) -> str:
    uid = generate_uid()
    series(folder, style=DicomStyle(series_uid=uid))
    return uid


def coronal_reference(folder: Path) -> Path:
    _beside(folder, affine_of(CORONAL, shape=(1, *SHAPE[1:])), _plain(folder))
    return folder


def references_of_two_directions(folder: Path) -> Path:
    uid = _plain(folder)
    _beside(folder, affine_of(CORONAL, shape=(2, *SHAPE[1:])), uid, slices=2)
    _beside(folder, affine_of(SAGITTAL, shape=(1, 20, 20)), uid, size=(20, 20))
    return folder


def reference_named(folder: Path) -> Path:
    """The file that stands for the series is the one that lies across it."""
    [file] = _beside(folder, affine_of(CORONAL, shape=(1, *SHAPE[1:])), _plain(folder))
    return file


def screen_without_a_place(folder: Path) -> Path:
    [file] = _beside(folder, affine_of(shape=(1, *SHAPE[1:])), _plain(folder), ImageType=["DERIVED", "SECONDARY"])
    edit(file, SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None, ImageOrientationPatient=None)
    return folder


def screen_at_a_place(folder: Path) -> Path:
    """Of the slices' own size, with the position of one of them."""
    _beside(folder, affine_of(), _plain(folder), SOPClassUID=SecondaryCaptureImageStorage, slices=1)
    return folder


def sheet_of_another_size(folder: Path) -> Path:
    _beside(folder, affine_of(shape=(1, 40, 40)), _plain(folder), size=(40, 40))
    return folder


def askew_at_the_end(folder: Path) -> Path:
    edit(series(folder)[-1], ImageOrientationPatient=[0.9962, 0.0872, 0, -0.0872, 0.9962, 0])
    return folder


def discs(folder: Path) -> Path:
    """Two slices through each of three discs, beside a stack of all."""
    uid = _plain(folder)
    for angle_deg in (10, 20, 30):
        turned = tilted(angle_deg)
        turned[:3, 3] = 40.0 * angle_deg
        _beside(folder, turned, uid, slices=2)
    return folder


def file_of_a_disc(folder: Path) -> Path:
    """Four slices through a disc, of a series that holds the sagittal stack, too."""
    return _beside(folder, affine_of(SAGITTAL, shape=(4, *SHAPE[1:])), _plain(folder), slices=4)[1]


def _scans(folder: Path, *told: dict[str, object], shift_mm: tuple[float, ...] = (0, 0, 0)) -> list[list[Path]]:
    """A scan for each of ``told``, which its files' headers have, each moved by ``shift_mm`` from the one before."""
    uid, study, scans = generate_uid(), generate_uid(), []
    for number, attributes in enumerate(told):
        affine = affine_of()
        affine[:3, 3] += number * np.array(shift_mm)
        files = series(folder / str(number), affine, DicomStyle(series_uid=uid))
        for file in files:
            edit(file, **{"StudyInstanceUID": study} | attributes)
        scans.append([file.rename(folder / f"{number}-{file.name}") for file in files])
        (folder / str(number)).rmdir()
    return scans


def _acquisitions(count: int) -> list[dict[str, object]]:
    return [{"AcquisitionNumber": number + 2} for number in range(count)]


def acquisitions_that_share_a_slice(folder: Path) -> Path:
    _scans(folder, *_acquisitions(2), shift_mm=(0, 0, 27.5))
    return folder


def file_of_acquisitions_that_share_slices(folder: Path) -> Path:
    """Three table positions; two slices are there twice at each change."""
    return _scans(folder, *_acquisitions(3), shift_mm=(0, 0, 25.0))[1][4]


def acquisitions_that_meet(folder: Path) -> Path:
    """None twice, and none missing."""
    return _scans(folder, *_acquisitions(2), shift_mm=(0, 0, 30.0))[0][3]


def files_of_frames_that_share_a_place(folder: Path) -> Path:
    for number, scan in enumerate(_scans(folder, {}, {}, shift_mm=(0, 0, 27.5))):
        merged(scan, range(12)).rename(folder / f"{number}.frames")
    return folder


def half_a_step_apart(folder: Path) -> Path:
    """Together they look like one volume of twice the slices."""
    _scans(folder, *_acquisitions(2), shift_mm=(0, 0, 1.25))
    return folder


def file_of_three_between_each_other(folder: Path) -> Path:
    """Nothing but their positions tells them apart."""
    return _scans(folder, {}, {}, {}, shift_mm=(0, 0, 0.4))[1][5]


def interleaved_acquisition(folder: Path) -> Path:
    """MR: every other slice first. Both halves are one volume."""
    for number, file in enumerate(series(folder, style=DicomStyle(modality="MR"))):
        edit(file, AcquisitionNumber=number % 2)
    return folder


def file_of_an_echo_and_part(folder: Path) -> Path:
    told = [{"EchoNumbers": echo, "ImageType": ["ORIGINAL", "PRIMARY", part]} for echo in (1, 2) for part in "MPI"]
    return _scans(folder, *told)[4][7]


def file_of_a_b_value_in_time(folder: Path) -> Path:
    told = [
        {"DiffusionBValue": value, "TemporalPositionIdentifier": time} for value in (0.0, 800.0) for time in (1, 2, 3)
    ]
    return _scans(folder, *told)[3][2]


def file_of_a_station(folder: Path) -> Path:
    """Two table positions of a sagittal spine, 8 mm apart, which share their planes; no number tells them apart."""
    scans, uid = [], generate_uid()
    for name, down_mm in (("upper", 0.0), ("lower", 8.0)):
        affine = affine_of(SAGITTAL)
        affine[2, 3] -= down_mm
        scans.append(series(folder / name, affine, DicomStyle(modality="MR", series_uid=uid)))
        for file in scans[-1]:
            file.rename(folder / f"{name}-{file.name}")
    return folder / f"lower-{scans[1][3].name}"


def enhanced_file_of_two(folder: Path) -> Path:
    paths = []
    for number, scan in enumerate(_scans(folder, {}, {})):
        paths.append(merged(scan, range(12)).rename(folder / f"{number}.frames"))
    return paths[1]


def broken_off(folder: Path) -> Path:
    """A second phase of which four slices came."""
    for file in _scans(folder, *_acquisitions(2))[1][4:]:
        file.unlink()
    return folder


def file_of_what_was_broken_off(folder: Path) -> Path:
    broken_off(folder)
    return folder / "1-slice00001.dcm"


def kernels_half_a_step_apart(folder: Path) -> Path:
    _scans(folder, {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, shift_mm=(0, 0, 1.25))
    return folder


def scans_that_overlap_in_part(folder: Path) -> Path:
    """Chest and abdomen: four slices of each lie between those of the other."""
    _scans(folder, *_acquisitions(2), shift_mm=(0, 0, 18.7))
    return folder


def echoes_in_blocks(folder: Path) -> Path:
    """Two echoes, of which the second goes on where the first ends and repeats two places."""
    _scans(folder, {"EchoTime": 10}, {"EchoTime": 90}, shift_mm=(0, 0, 25.0))
    return folder


def file_of_a_phase_under_one_instance_uid(folder: Path) -> Path:
    told = [{"AcquisitionNumber": number, "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.9"} for number in (1, 2)]
    return _scans(folder, *told)[1][4]


def patients_under_one_series_uid(folder: Path) -> Path:
    """One lies where the other ends; only their studies tell."""
    _scans(folder, {"StudyInstanceUID": "1.2.1"}, {"StudyInstanceUID": "1.2.2"}, shift_mm=(0, 0, 30.0))
    return folder


def file_of_a_patient_under_one_series_uid(folder: Path) -> Path:
    return patients_under_one_series_uid(folder) / "1-slice00003.dcm"


def file_of_a_patient_without_series_uids(folder: Path) -> Path:
    """Each slice has a series UID of its own; the studies are still two."""
    path = file_of_a_patient_under_one_series_uid(folder)
    for file in folder.iterdir():
        edit(file, SeriesInstanceUID=generate_uid())
    return path


def positions_of_a_tenth(folder: Path) -> Path:
    at_heights(folder, [round(0.75 * number, 1) for number in range(24)])
    return folder


def file_of_step_and_shoot_sent_twice(folder: Path) -> Path:
    """Four slices to a step, each with its AcquisitionNumber; one slice came twice."""
    shape = (40, *SHAPE[1:])
    files = series(folder, affine_of(spacing_mm=(0.7, 0.8, 0.7), shape=shape), shape=shape)
    for number, file in enumerate(files):
        edit(file, AcquisitionNumber=number // 4)
    again = folder / "again.dcm"
    shutil.copy(files[17], again)
    edit(again, SOPInstanceUID=generate_uid())
    return files[17]


def series_uids_of_their_own(folder: Path) -> Path:
    for file in series(folder):
        edit(file, SeriesInstanceUID=generate_uid(), SeriesNumber=4)
    return folder


def file_of_studies_of_their_own(folder: Path) -> Path:
    """Nothing links the slices any more but what they show and how; two of another description lie beside."""
    uids = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    others = series(folder / "others", style=DicomStyle(series_description="Scout"), shape=(2, *SHAPE[1:]))
    files = series(folder)
    for file in [*files, *others]:
        edit(file, **{name: generate_uid() for name in uids})
    for file in others:
        file.rename(folder / f"other-{file.name}")
    return files[7]


def largest_unreadable(folder: Path) -> Path:
    """More slices, but a gap of 50 mm between them."""
    files = series(folder / "gap", affine_of(shape=(40, *SHAPE[1:])), shape=(40, *SHAPE[1:]))
    for file in files[10:30]:
        file.unlink()
    series(folder / "whole")
    return folder


def largest_in_directions(folder: Path) -> Path:
    uid = generate_uid()
    (folder / "loc").mkdir()
    for number, directions in enumerate((CORONAL, SAGITTAL, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))):
        affine = affine_of(directions, shape=(9, *SHAPE[1:]))
        for file in _beside(folder / "loc", affine, uid, slices=9):
            file.rename(file.with_suffix(f".{number}"))
    series(folder / "stack")
    return folder


def _on_a_cd(folder: Path, parts: int, of_each: int) -> list[Path]:
    shape = (parts * of_each, *SHAPE[1:])
    files = series(folder / "all", affine_of(spacing_mm=(0.7, 0.8, 1.0), shape=shape), shape=shape)
    moved = []
    for number, file in enumerate(files):
        part = folder / f"DICOM{number // of_each:05d}"
        part.mkdir(exist_ok=True)
        moved.append(file.rename(part / f"I{number:04d}"))
    (folder / "all").rmdir()
    return moved


def file_on_a_cd(folder: Path) -> Path:
    return _on_a_cd(folder, 3, 12)[15]


def file_of_the_last_of_many_folders(folder: Path) -> Path:
    """Two slices to a folder, a folder of something else between."""
    files = _on_a_cd(folder, 6, 2)
    series(folder / "DICOM00003a", shape=(4, 20, 20))
    return files[-1]


def file_on_a_cd_without_zeros(folder: Path) -> Path:
    """Folders 8 to 11."""
    moved = _on_a_cd(folder, 4, 3)
    for number, part in enumerate(sorted(folder.iterdir())):
        part.rename(folder / str(8 + number))
    return folder / "9" / moved[4].name


def file_with_a_copy_beside(folder: Path) -> Path:
    files = series(folder / "CT")
    shutil.copytree(folder / "CT", folder / "CT copy")
    return files[4]


def file_with_another_patient_beside(folder: Path) -> Path:
    """The same series UID was written everywhere."""
    files = patients_under_one_series_uid(folder).glob("*.dcm")
    for file in files:
        part = folder / file.name[0]
        part.mkdir(exist_ok=True)
        file.rename(part / file.name)
    return folder / "1" / "1-slice00003.dcm"


def file_with_a_remake_beside(folder: Path) -> Path:
    """The same series was anonymised, or exported anew, with other instance UIDs."""
    style = DicomStyle(series_uid="1.2.826.0.1.3680043.8.498.3")
    own = series(folder / "a", style=style)
    for file in [*own, *series(folder / "b", style=style)]:
        edit(file, StudyInstanceUID="1.2.826.0.1.3680043.8.498.4", FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.5")
    return own[2]


LEFT_OUT = Read(warnings=("slices_left_out",))
ONE = Read(warnings=("one_of_several_volumes",))
APART = Read(warnings=("series_uid_missing",))


def _long(slices: int, *warnings: str, step_mm: float = 2.5) -> Read:
    return Read(size=(16, 14, slices), spacing_mm=(0.7, 0.8, step_mm), warnings=warnings)


CASES = [
    Case("coronal reference", "One more image across the slices, not named LOCALIZER.", coronal_reference, LEFT_OUT),
    Case("references of two directions", "Two coronal, one sagittal.", references_of_two_directions, LEFT_OUT),
    Case("reference image, named", "The series is read, though its file is not.", reference_named, LEFT_OUT),
    Case("screen without a place", "A grey picture under the series' UID.", screen_without_a_place, LEFT_OUT),
    Case("screen at a slice's place", "A picture that took a slice's header.", screen_at_a_place, LEFT_OUT),
    Case("sheet of another size", "40 × 40 pixels, parallel to the slices.", sheet_of_another_size, LEFT_OUT),
    Case(
        "last slice askew",
        "Turned by 5°, at the end, where no hole is left.",
        askew_at_the_end,
        _long(11, "slices_left_out"),
    ),
    Case("discs beside a stack", "Two slices through each of three discs.", discs, LEFT_OUT),
    Case(
        "file of another direction",
        "Four sagittal slices beside twelve axial ones: the file's own are read.",
        file_of_a_disc,
        Read(size=(16, 14, 4), warnings=("few_slices", "one_of_several_volumes")),
    ),
    Case(
        "acquisitions that share a slice",
        "Two table positions; positions go on evenly.",
        acquisitions_that_share_a_slice,
        _long(23, "slices_left_out"),
    ),
    Case(
        "file of three acquisitions",
        "Two slices are there twice at each change of the table's position.",
        file_of_acquisitions_that_share_slices,
        _long(32, "slices_left_out"),
    ),
    Case("acquisitions that meet", "A file of the first stands for both.", acquisitions_that_meet, _long(24)),
    Case(
        "frames that share a place",
        "Two files of frames; the last of one is the first of the other.",
        files_of_frames_that_share_a_place,
        _long(23, "slices_left_out"),
    ),
    Case("half a step apart", "Two phases between each other's slices.", half_a_step_apart, errors.SeveralVolumes),
    Case("three scans between each other", "Only positions tell.", file_of_three_between_each_other, ONE),
    Case("interleaved acquisition", "MR, every other slice first.", interleaved_acquisition),
    Case("echo and part, file", "Two numbers together tell six volumes apart.", file_of_an_echo_and_part, ONE),
    Case("b-value and time, file", "Two others do.", file_of_a_b_value_in_time, ONE),
    Case("one of two stations, file", "They share their planes.", file_of_a_station, ONE),
    Case("one of two enhanced files", "Each is a whole volume.", enhanced_file_of_two, ONE),
    Case("phase that was broken off", "Four slices lie where others do.", broken_off, LEFT_OUT),
    Case(
        "file of what was broken off",
        "Its own four slices are read.",
        file_of_what_was_broken_off,
        Read(size=(16, 14, 4), warnings=("few_slices", "one_of_several_volumes")),
    ),
    Case("kernels half a step apart", "Soft and sharp.", kernels_half_a_step_apart, errors.SeveralVolumes),
    Case("scans that overlap in part", "Shifted.", scans_that_overlap_in_part, errors.SeveralVolumes),
    Case("echoes in blocks", "One volume has one contrast.", echoes_in_blocks, errors.SeveralVolumes),
    Case("phases under one instance UID", "The file's own.", file_of_a_phase_under_one_instance_uid, ONE),
    Case("two patients, one series UID", "Studies tell.", patients_under_one_series_uid, errors.SeveralVolumes),
    Case("two patients, one series UID, file", "The file's own.", file_of_a_patient_under_one_series_uid, ONE),
    Case("two patients, series UIDs each, file", "Studies tell.", file_of_a_patient_without_series_uids, APART),
    Case(
        "positions of a tenth",
        "0.75 mm, written to one digit.",
        positions_of_a_tenth,
        _long(24, "uneven_spacing", step_mm=0.7),
    ),
    Case(
        "step and shoot, one slice twice",
        "Steps of four slices are no phases.",
        file_of_step_and_shoot_sent_twice,
        errors.SeveralVolumes,
    ),
    Case("series UIDs of their own", "Anonymised: one for each slice.", series_uids_of_their_own, APART),
    Case("studies of their own, file", "And a study and frame for each.", file_of_studies_of_their_own, APART),
    Case(
        "largest series with a gap",
        "The largest that can be read is.",
        largest_unreadable,
        Read(warnings=("series_passed_over",)),
    ),
    Case(
        "largest series in three directions",
        "27 images of a localizer that does not say so.",
        largest_in_directions,
        Read(warnings=("series_passed_over",)),
    ),
    Case(
        "file on a CD",
        "The series goes on in the folders beside.",
        file_on_a_cd,
        _long(36, "series_elsewhere", step_mm=1.0),
    ),
    Case(
        "two slices to a folder, file",
        "Six folders; another series lies between.",
        file_of_the_last_of_many_folders,
        _long(12, "series_elsewhere", step_mm=1.0),
    ),
    Case(
        "folders 8 to 11, file",
        "9 comes before 10.",
        file_on_a_cd_without_zeros,
        _long(12, "series_elsewhere", step_mm=1.0),
    ),
    Case("copy beside", "The same instances in another folder.", file_with_a_copy_beside),
    Case("another patient beside", "Under the same series UID.", file_with_another_patient_beside),
    Case(
        "remade series beside",
        "Together they would be several volumes; the file's folder is read.",
        file_with_a_remake_beside,
        Read(warnings=("series_elsewhere",)),
    ),
]
