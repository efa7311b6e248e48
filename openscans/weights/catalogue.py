"""Which models there are: tasks, the datasets whose networks serve them, and where their releases lie.

Folder names, versions, trainers, spacings and labels are TotalSegmentator's own tables; nothing here touches disk or
network.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from totalsegmentator.map_tasks_config import TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS
from totalsegmentator.map_to_binary import class_map, class_map_5_parts

from openscans.errors import UnknownTask

CONFIGURATION = "nnUNetPlans__3d_fullres"
UNPACKED_PER_ZIP = 1.25
"""Room that unpacking is expected to take, in sizes of the zip: trained weights shrink by less than a fifth."""

TOTAL_MODES = TASK_CONFIGS["total"]["sub_modes"]


@dataclass(frozen=True)
class Dataset:
    """One trained network of a release.

    ``spacing_mm`` is the distance between the samples that it is given, along every axis.
    ``zip_bytes`` and ``zip_sha256`` are what third parties observed: TotalSegmentator publishes no digests.
    """

    number: int
    trainer: str
    spacing_mm: float
    zip_bytes: int
    zip_sha256: str | None = None

    @property
    def folder(self) -> str:
        return str(TASK_ID_WEIGHTS_CONFIGS[self.number]["foldername"])

    @property
    def training(self) -> str:
        """The folder of the one training that is used; newer releases hold several."""
        return f"{self.trainer}__{CONFIGURATION}"

    @property
    def release_path(self) -> str:
        """Below a mirror's base address."""
        return f"{TASK_ID_WEIGHTS_CONFIGS[self.number]['version']}/{self.folder}.zip"


@dataclass(frozen=True)
class Task:
    """What a person chooses to have: a name for the API, and the networks behind it."""

    key: str
    name: str
    description: str
    datasets: tuple[Dataset, ...]
    structures: tuple[str, ...]
    needs: tuple[str, ...] = ()


def _head_to_foot(labels: Mapping[int, str]) -> tuple[str, ...]:
    """TotalSegmentator numbers vertebrae from the foot; "vertebrae_C1" becomes "C1"."""
    return tuple(labels[number].removeprefix("vertebrae_") for number in sorted(labels, reverse=True))


VERTEBRAE = Dataset(292, TOTAL_MODES["default"]["trainer"], TOTAL_MODES["default"]["resample"], 234_050_721)
TOTAL_3_MM = Dataset(
    297,
    TOTAL_MODES["fast"]["trainer"],
    TOTAL_MODES["fast"]["resample"],
    135_386_075,
    "0baa2c8de2975600eb31801dd5c1825cd2b356f794498659cf3348714c073394",
)
TOTAL_6_MM = Dataset(298, TOTAL_MODES["fastest"]["trainer"], TOTAL_MODES["fastest"]["resample"], 134_827_240)
VERTEBRAE_MR = Dataset(
    756,
    TASK_CONFIGS["vertebrae_mr"]["trainer"],
    TASK_CONFIGS["vertebrae_mr"]["resample"],
    230_791_939,
    "27c65114523dac5d52470aa91ecfef17f46b536aef088febeffc2961a5a49d22",
)

TASKS: Mapping[str, Task] = {
    task.key: task
    for task in (
        Task(
            "vertebrae",
            "Vertebrae in CT",
            "Labels C1 to S1 at 1.5 mm; the whole-body model finds the spine for it.",
            (VERTEBRAE,),
            _head_to_foot(class_map_5_parts["class_map_part_vertebrae"]),
            needs=("total_body",),
        ),
        Task(
            "total_body",
            "Whole body in CT",
            "Finds the spine at 6 mm and, in fast mode, labels the vertebrae at 3 mm.",
            (TOTAL_6_MM, TOTAL_3_MM),
            _head_to_foot(class_map["total"]),
        ),
        Task(
            "vertebrae_mr",
            "Vertebrae in MR",
            "Labels C1 to L5 and the sacrum at 1.5 mm.",
            (VERTEBRAE_MR,),
            _head_to_foot(class_map["vertebrae_mr"]),
        ),
    )
}


def task_of(key: str) -> Task:
    """Raises UnknownTask."""
    if key not in TASKS:
        raise UnknownTask("There is no model of that name.")
    return TASKS[key]


def needing(task: Task) -> tuple[str, ...]:
    """The tasks that do not work without ``task``."""
    return tuple(other.key for other in TASKS.values() if task.key in other.needs)


def with_needs(task: Task) -> tuple[Task, ...]:
    """``task``, and before it those that it does not work without."""
    return (*(TASKS[key] for key in task.needs), task)
