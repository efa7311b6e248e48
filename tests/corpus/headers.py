"""Headers that the standard does not allow: read where nothing is in doubt, and where something is, it is named."""

from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from openscans import errors
from phantom.files import PLAIN_STYLE, DicomStyle
from tests.bad_files import SAMPLES_TAG, insert, nested_sequences
from tests.corpus.cases import Case, Read
from tests.corpus.folders import localizer_in_the_series
from tests.corpus.scene import series
from tests.enhanced import merged

MANY_LEVELS = 200
"""Nearly as deep as pydicom's reader can go, which calls itself four times a level."""


def set_text(dataset: Dataset, **texts: str) -> None:
    """Elements that hold ``texts`` as they are, whatever their representation allows."""
    for name, text in texts.items():
        tag, value = Tag(name), text.encode() + b" " * (len(text) % 2)
        implicit = dataset.original_encoding[0] is True
        dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, implicit, True)


def _with_texts(style: DicomStyle = PLAIN_STYLE, **texts: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for file in series(folder, style=style):
            dataset = pydicom.dcmread(file)
            set_text(dataset, **texts)
            dataset.save_as(file)
        return folder

    return make


def phases_named_by_letters(folder: Path) -> Path:
    uid = generate_uid()
    for phase in ("A", "B"):
        _with_texts(DicomStyle(series_uid=uid, suffix=f".{phase}"), AcquisitionNumber=phase)(folder / phase)
        for file in (folder / phase).iterdir():
            file.rename(folder / file.name)
        (folder / phase).rmdir()
    return next(folder.glob("*.B"))


def as_one_text(*names: str) -> Callable[[Path], Path]:
    """Elements whose values are one text, as a representation of texts without limit makes them."""

    def make(folder: Path) -> Path:
        for file in series(folder):
            dataset = pydicom.dcmread(file)
            for name in names:
                text = "\\".join(str(number) for number in dataset[name].value)
                dataset[name] = DataElement(Tag(name), "UT", text)
            dataset.save_as(file)
        return folder

    return make


def spacing_of_frames_as_one_text(folder: Path) -> Path:
    path = merged(series(folder), range(12))
    whole = pydicom.dcmread(path)
    measures = whole.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures[Tag("PixelSpacing")] = DataElement(Tag("PixelSpacing"), "UT", "0.8\\0.7")
    whole.save_as(path)
    return path


def intercepts_of_frames_with_commas(folder: Path) -> Path:
    path = merged(series(folder), range(12))
    whole = pydicom.dcmread(path)
    for groups in whole.PerFrameFunctionalGroupsSequence:
        set_text(groups.PixelValueTransformationSequence[0], RescaleIntercept="-1024,0")
    whole.save_as(path)
    return path


def commas_in_another_series(folder: Path) -> Path:
    _with_texts(DicomStyle(suffix=".other"), PixelSpacing="0,8\\0,7")(folder)
    series(folder)
    return folder


def localizer_with_commas(folder: Path) -> Path:
    path = localizer_in_the_series(folder)
    [scout] = folder.glob("*.scout")
    dataset = pydicom.dcmread(scout)
    set_text(dataset, PixelSpacing="0,8\\0,7")
    dataset.save_as(scout)
    return path


def nested_deep(folder: Path) -> Path:
    for file in series(folder):
        insert(file, nested_sequences(MANY_LEVELS), before=SAMPLES_TAG)
    return folder


NO_NUMBERS = _with_texts(InstanceNumber="A1", AcquisitionNumber="1.5")
NO_NUMBERS_EITHER = _with_texts(
    DicomStyle(transfer_syntax=ImplicitVRLittleEndian),
    SeriesNumber="CT-7",
    TemporalPositionIdentifier="first",
    EchoNumbers="1,2",
)

CASES = [
    Case("numbers that are none", "InstanceNumber A1, AcquisitionNumber 1.5: nothing needs them.", NO_NUMBERS),
    Case("other numbers that are none", "SeriesNumber CT-7, an echo 1,2, implicit.", NO_NUMBERS_EITHER),
    Case(
        "phases named by letters, file",
        "AcquisitionNumber A and B tell two volumes apart.",
        phases_named_by_letters,
        Read(warnings=("one_of_several_volumes",)),
    ),
    Case("pixel spacing as one text", "0.8\\0.7 where two numbers belong.", as_one_text("PixelSpacing")),
    Case(
        "position and orientation as one text",
        "As above, with the numbers' order kept.",
        as_one_text("ImagePositionPatient", "ImageOrientationPatient"),
    ),
    Case("pixel spacing of frames as one text", "In an enhanced CT's groups.", spacing_of_frames_as_one_text),
    Case(
        "decimal commas",
        "0,8 in PixelSpacing: the sentence says so.",
        _with_texts(PixelSpacing="0,8\\0,7"),
        errors.CorruptFile,
    ),
    Case(
        "decimal commas of frames",
        "In the intercepts of an enhanced CT.",
        intercepts_of_frames_with_commas,
        errors.CorruptFile,
    ),
    Case("decimal commas beside", "In a series of the folder that is not the largest.", commas_in_another_series),
    Case("localizer with decimal commas", "Of the same series; it would be left out anyway.", localizer_with_commas),
    Case(
        "a position that is none",
        "Words where a number is needed.",
        _with_texts(ImagePositionPatient="left\\back\\head"),
        errors.CorruptFile,
    ),
    Case(f"nested {MANY_LEVELS} deep", "Sequences as deep as they can be read, in every slice.", nested_deep),
]
