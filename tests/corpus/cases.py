"""What a case of the corpus is: a name, a sentence, a maker of real files, and what reading them must give."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from openscans.errors import OpenScansError
from tests.corpus.scene import SHAPE, SPACING_MM


@dataclass(frozen=True)
class Read:
    """An image that is read: columns, rows and slices as stored, spacings, and codes of warnings.

    ``scene``: it shows `scene.values_at`, so that every voxel can be checked.
    """

    size: tuple[int, int, int] = (SHAPE[2], SHAPE[1], SHAPE[0])
    spacing_mm: tuple[float, float, float] = SPACING_MM
    warnings: tuple[str, ...] = ()
    scene: bool = True


Outcome: TypeAlias = Read | type[OpenScansError]


@dataclass(frozen=True)
class Case:
    """``make`` takes an empty folder and returns the path to send. ``real``: a real series beside the project."""

    name: str
    says: str
    make: Callable[[Path], Path]
    expected: Outcome = Read()
    real: bool = False
