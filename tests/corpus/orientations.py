"""Patients who lie in every way, and slices cut in every direction."""

from pathlib import Path

import numpy as np

from phantom.files import DicomStyle
from tests.corpus.cases import Case
from tests.corpus.scene import affine_of, series

Directions = tuple[tuple[float, ...], ...]

POSITIONS: dict[str, tuple[str, str, Directions]] = {
    "head first, supine": ("HFS", "What most scans are.", ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
    "feet first, supine": ("FFS", "Slices run from head to foot.", ((1, 0, 0), (0, 1, 0), (0, 0, -1))),
    "head first, prone": ("HFP", "Columns run to the right, rows to the front.", ((-1, 0, 0), (0, -1, 0), (0, 0, 1))),
    "feet first, prone": ("FFP", "Prone, and from head to foot.", ((-1, 0, 0), (0, -1, 0), (0, 0, -1))),
    "decubitus, right side down": ("HFDR", "Columns run to the front.", ((0, -1, 0), (1, 0, 0), (0, 0, 1))),
    "decubitus, left side down": ("HFDL", "Columns run to the back.", ((0, 1, 0), (-1, 0, 0), (0, 0, 1))),
    "sagittal": ("HFS", "Rows run down, slices to the right.", ((0, 1, 0), (0, 0, -1), (-1, 0, 0))),
    "sagittal, from the right": ("HFS", "Slices run against their normal.", ((0, 1, 0), (0, 0, -1), (1, 0, 0))),
    "coronal": ("HFS", "Rows run down, slices to the back.", ((1, 0, 0), (0, 0, -1), (0, 1, 0))),
    "mirrored": ("HFS", "Columns run to the right: the normal points to the feet.", ((-1, 0, 0), (0, 1, 0), (0, 0, 1))),
}
"""PatientPosition (which is not used: the directions tell), a sentence, directions of columns, rows, slices."""


def oblique_directions() -> Directions:
    """Turned by 23° and nodded by 14°."""
    turn, nod = np.radians(23), np.radians(-14)
    around_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    around_x = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
    return tuple(map(tuple, (around_z @ around_x).T))


def _lying(directions: Directions, patient_position: str, modality: str = "CT"):  # noqa: ANN202
    def make(folder: Path) -> Path:
        series(folder, affine_of(directions), DicomStyle(modality=modality, patient_position=patient_position))
        return folder

    return make


CASES = [
    *(
        Case(name, says, _lying(directions, patient_position))
        for name, (patient_position, says, directions) in POSITIONS.items()
    ),
    Case("oblique", "Slices along no axis of the patient.", _lying(oblique_directions(), "HFS")),
    Case("MR, oblique", "MR has no HU; its values are the stored ones.", _lying(oblique_directions(), "HFS", "MR")),
]
