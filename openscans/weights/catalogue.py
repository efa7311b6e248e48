"""Which models there are: one table of tasks, the networks behind them, and where their releases lie.

A new task is a new entry of `TASKS`; what else is told of tasks follows from it. Folder names, versions, trainers,
spacings and labels are TotalSegmentator's own tables; nothing here touches disk or network.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from totalsegmentator.map_tasks_config import TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS
from totalsegmentator.map_to_binary import class_map, class_map_5_parts

from openscans.errors import UnknownTask, UnsupportedModality
from openscans.types import HEAD_TO_FOOT, ResultWarning, WarningCode

CONFIGURATION = "nnUNetPlans__3d_fullres"
UNPACKED_PER_ZIP = 1.25
"""Room that unpacking is expected to take, in sizes of the zip: trained weights shrink by less than a fifth."""

SPINE = (*HEAD_TO_FOOT, "sacrum")

TOTAL_MODES = TASK_CONFIGS["total"]["sub_modes"]

TOTAL_STEP, USUAL_STEP = 0.8, 0.5
"""What TotalSegmentator has for the networks of its `total` tasks, and nnU-Net for all others."""


@dataclass(frozen=True)
class Dataset:
    """One trained network of a release.

    ``spacing_mm`` is the distance between the samples that it is given, along every axis, and ``step`` that between its
    windows, as a share of the patch. ``zip_bytes`` and ``zip_sha256`` are what third parties observed: TotalSegmentator
    publishes no digests.
    """

    number: int
    trainer: str
    spacing_mm: float
    step: float
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
    def version(self) -> str:
        """Of the release that it belongs to, such as "v2.0.0"."""
        return self._release.removesuffix("-weights")

    @property
    def release_path(self) -> str:
        """Below a mirror's base address."""
        return f"{self._release}/{self.folder}.zip"

    @property
    def _release(self) -> str:
        return str(TASK_ID_WEIGHTS_CONFIGS[self.number]["version"])


@dataclass(frozen=True)
class Task:
    """What a person chooses to have: a name for the API, and the networks behind it.

    ``segmenter`` labels the vertebrae; ``localiser`` finds the spine for it first, None lets it see the whole image.
    ``robust`` looks again where the localiser finds no spine or cuts it, if it is on disk; nobody waits for it.
    ``further`` are downloaded and deleted with the segmenter, before it: a localiser belongs to one task and serves
    others too. ``fast`` is the key of the task that finds the same vertebrae in less time, None where there is none.
    ``structures`` are all that the segmenter knows, vertebrae from head to foot.
    """

    key: str
    name: str
    description: str
    modality: str
    structures: tuple[str, ...]
    segmenter: Dataset
    localiser: Dataset | None = None
    robust: Dataset | None = None
    further: tuple[Dataset, ...] = ()
    fast: str | None = None

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Those that belong to it, in the order in which they are brought."""
        return (*self.further, self.segmenter)

    @property
    def opened(self) -> tuple[Dataset, ...]:
        """Those that a detection does not work without, in the order in which it runs them, whoever they belong to."""
        return (self.segmenter,) if self.localiser is None else (self.localiser, self.segmenter)

    @property
    def needs(self) -> tuple[str, ...]:
        """The other tasks whose networks it opens."""
        foreign = (dataset for dataset in self.opened if dataset not in self.datasets)
        return tuple(dict.fromkeys(owner_of(dataset).key for dataset in foreign))


def head_to_foot(labels: Mapping[int, str]) -> tuple[str, ...]:
    """What ``labels`` name, the last number first; of vertebrae, the first in the body first, whatever their numbers.

    "vertebrae_C1" becomes "C1".
    """
    names = [labels[number].removeprefix("vertebrae_") for number in sorted(labels, reverse=True)]
    spine = iter(sorted((name for name in names if name in SPINE), key=SPINE.index))
    return tuple(next(spine) if name in SPINE else name for name in names)


VERTEBRAE = Dataset(
    292,
    TOTAL_MODES["default"]["trainer"],
    TOTAL_MODES["default"]["resample"],
    TOTAL_STEP,
    234_050_721,
)
TOTAL_3_MM = Dataset(
    297,
    TOTAL_MODES["fast"]["trainer"],
    TOTAL_MODES["fast"]["resample"],
    TOTAL_STEP,
    135_386_075,
    "0baa2c8de2975600eb31801dd5c1825cd2b356f794498659cf3348714c073394",
)
TOTAL_6_MM = Dataset(
    298,
    TOTAL_MODES["fastest"]["trainer"],
    TOTAL_MODES["fastest"]["resample"],
    TOTAL_STEP,
    134_827_240,
)
VERTEBRAE_MR = Dataset(
    756,
    TASK_CONFIGS["vertebrae_mr"]["trainer"],
    TASK_CONFIGS["vertebrae_mr"]["resample"],
    USUAL_STEP,
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
            "CT",
            head_to_foot(class_map_5_parts["class_map_part_vertebrae"]),
            VERTEBRAE,
            localiser=TOTAL_6_MM,
            robust=TOTAL_3_MM,
            fast="total_body",
        ),
        Task(
            "total_body",
            "Whole body in CT",
            "Finds the spine at 6 mm and, in fast mode, labels the vertebrae at 3 mm.",
            "CT",
            head_to_foot(class_map["total"]),
            TOTAL_3_MM,
            localiser=TOTAL_6_MM,
            robust=TOTAL_3_MM,
            further=(TOTAL_6_MM,),
            fast="total_body",
        ),
        Task(
            "vertebrae_mr",
            "Vertebrae in MR",
            "Labels C1 to L5 and the sacrum at 1.5 mm.",
            "MR",
            head_to_foot(class_map["vertebrae_mr"]),
            VERTEBRAE_MR,
        ),
    )
}
"""The first of a modality's is used where nobody chose, the first of all where the modality is not known either."""


def task_of(key: str) -> Task:
    """Raises UnknownTask."""
    if key not in TASKS:
        raise UnknownTask("There is no model of that name.", hint=f"The tasks are {_join(TASKS)}.")
    return TASKS[key]


def task_for(modality: str | None) -> Task:
    """The task for an image of ``modality``, None where the format does not tell. Raises UnsupportedModality."""
    for task in TASKS.values():
        if modality in {None, task.modality}:
            return task
    raise UnsupportedModality("The series is neither CT nor MR.")


def fast_form(task: Task) -> tuple[Task, tuple[ResultWarning, ...]]:
    """The task to run where ``task`` is wanted fast: itself and a warning where it has no fast form."""
    if task.fast is not None:
        return TASKS[task.fast], ()
    others = any(other.fast for other in TASKS.values() if other.modality == task.modality)
    lacking = (
        f"The model {task.key} has no fast form" if others else f"There is no fast model for {task.modality} images"
    )
    return task, (ResultWarning(WarningCode.FAST_MODE_UNAVAILABLE, f"{lacking}; the full one was used."),)


def owner_of(dataset: Dataset) -> Task:
    """The task that it is downloaded and deleted with."""
    return next(task for task in TASKS.values() if dataset in task.datasets)


def needing(task: Task) -> tuple[str, ...]:
    """The tasks that do not work without ``task``."""
    return tuple(other.key for other in TASKS.values() if task.key in other.needs)


def with_needs(task: Task) -> tuple[Task, ...]:
    """``task``, and before it those that it does not work without."""
    return (*(TASKS[key] for key in task.needs), task)


def _join(names: Iterable[str]) -> str:
    """ "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}"
