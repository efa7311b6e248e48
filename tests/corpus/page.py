"""The corpus as a page for people: `python -m tests.corpus.page` writes DICOM.md, and a test compares the two."""

from pathlib import Path

from tests.corpus import CASES, THEMES
from tests.corpus.cases import Case, Outcome, Read

PAGE = Path(__file__).resolve().parents[2] / "DICOM.md"

INTRODUCTION = f"""# Which images are read

{len(CASES)} images and what reading them gives; `tests/volumes/test_corpus.py` makes each of them and holds every line.
`python -m tests.corpus.page` writes this page from the same table.

A size is columns × rows × slices of the image as stored, with their distances in mm. A code in parentheses is a
warning in the answer; a code alone is the error's.

- Positions decide how slices are sorted; file names, InstanceNumber, SliceThickness and GantryDetectorTilt do not.
- **Sheared slices** (0.1° to 45°) are set upright before a network sees them: `gantry_tilt_corrected`. `center`,
  `bounds` and `slice` are told on the slices as they are stored; `bounds` is then the box around a sheared box.
- **Gaps** of up to 10 mm are filled by interpolation: `missing_slices` where whole slices are missing, `uneven_spacing`
  where distances differ otherwise. Wider ones are `inconsistent_geometry`: vertebrae of a neck follow each other every
  15 mm, so no narrower gap can hide one and shift the numbering.
- **Several volumes under one series UID** are `several_volumes`: phases, echoes, stations, also where one's slices lie
  between another's. If a file was named, its own is read: `one_of_several_volumes`. What tells them apart are numbers
  of the header, up to three together (acquisition, point in time, echo, kind of image, b-value, …), each only where
  every volume covers the others' places; else the positions themselves.
- **Images that belong to no volume** under a series' UID (references, screens, sheets) are passed over, if the volume
  is whole without them: `slices_left_out`. So are slices that two acquisitions share where positions go on evenly.
- **Of a folder** the series is read that makes the largest volume; larger ones that cannot be read are named:
  `series_passed_over`. Slices with series UIDs of their own are put together if size, description and device agree:
  `series_uid_missing`.
- **A file** stands for its series, also where that goes on in the folders beside: `series_elsewhere`. Four folders in a
  row without it end the search; with OPENSCANS_ALLOWED_ROOTS there is none.
- **What may not be read** (by its permissions, or as a link that leads nowhere, or because it went meanwhile) is passed
  over: `slices_left_out` where slices of the series may be among it.
- **Zips** are unpacked into a private folder, as far as they hold images, and read like the folder that was zipped; one
  NIfTI, NRRD or MetaImage file is read where there is no DICOM. **Files that gzip packed** (`.dcm.gz`) are read as they
  are. Content tells both, whatever the name says.
- **A DICOMDIR** is read like the folder that it lies in, but for the files that it does not list; where it lists some
  of the series that are not there: `missing_slices`.
- **NIfTI** is packed or not by its content, whatever its name says; of a pair either file may be named. NRRD and
  MetaImage are told apart by their content too. What bzip2 packed is `unsupported_file`.
- **Metres and micrometres** of these headers become millimetres; a unit that makes voxels of less than 0.01 mm or more
  than 50 mm is not believed, and neither is the rest: `inconsistent_geometry`.
- **Sheared NIfTI, NRRD and MetaImage**: planes that follow each other aslant are set upright as those of DICOM; where
  the first two axes are more than 1° from a right angle nothing is moved: `sheared_axes`.
- **A header that tells no placement** (NIfTI: sform and qform are 0; NRRD: no directions, or in no space of the
  patient's; MetaImage: no TransformMatrix) leaves left and right unknown: `placement_unknown`.
- **What no body can be** is refused by the headers alone, as `inconsistent_geometry` with the header's numbers: images
  longer than 3 m or larger than 3000 litres, voxels of less than 0.01 mm or more than 50 mm, or of more than 8 ml, and
  slices sheared so far, or with such gaps, that a volume of them would have over eight times their voxels.
- **Memory** is reckoned from the headers and compared with what is free before a pixel is read: `out_of_memory`.
"""


def text() -> str:
    parts = [INTRODUCTION]
    for theme, cases in THEMES.items():
        parts += [f"\n## {theme}\n", "\n| image | what it is | what reading it gives |\n|---|---|---|\n"]
        parts += [_line(case) for case in cases]
    return "".join(parts)


def _line(case: Case) -> str:
    return f"| {case.name} | {case.says} | {_outcome(case.expected)} |\n"


def _outcome(expected: Outcome) -> str:
    if not isinstance(expected, Read):
        return f"`{expected.code}`"
    size = " × ".join(map(str, expected.size))
    spacing = " × ".join(f"{distance:g}" for distance in expected.spacing_mm)
    codes = "".join(f" (`{code}`)" for code in expected.warnings)
    return f"{size}, {spacing} mm{codes}"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
