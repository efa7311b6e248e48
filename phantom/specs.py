"""TotalSegmentator's networks as their plans and labels describe them: sizes only, no files and no weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS
from totalsegmentator.map_to_binary import class_map, class_map_5_parts

Triple = tuple[int, int, int]
CUBE: Triple = (3, 3, 3)
HALVE: Triple = (2, 2, 2)
KEEP: Triple = (1, 1, 1)


@dataclass(frozen=True)
class NetworkSpec:
    """One of TotalSegmentator's networks: all that its plans.json and dataset.json tell."""

    dataset: int
    trainer: str
    labels: Mapping[int, str]
    spacing_mm: float
    patch_zyx: Triple
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    base_features: int = 32
    max_features: int = 320
    modality: str = "CT"
    clip_hu: tuple[float, float] = (-1004.0, 1588.0)
    mean_hu: float = -50.387
    std_hu: float = 503.392

    @property
    def folder(self) -> str:
        return str(TASK_ID_WEIGHTS_CONFIGS[self.dataset]["foldername"])

    @property
    def version(self) -> str:
        return str(TASK_ID_WEIGHTS_CONFIGS[self.dataset]["version"])

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(min(self.base_features * 2**stage, self.max_features) for stage in range(len(self.strides)))

    @property
    def heads(self) -> int:
        return len(self.labels) + 1


def _halving(stages: int) -> tuple[Triple, ...]:
    return (KEEP, *[HALVE] * (stages - 1))


SPECS: Mapping[int, NetworkSpec] = {
    292: NetworkSpec(
        292,
        "nnUNetTrainerNoMirroring",
        class_map_5_parts["class_map_part_vertebrae"],
        spacing_mm=1.5,
        patch_zyx=(128, 128, 128),
        strides=_halving(6),
        kernels=(CUBE,) * 6,
    ),
    297: NetworkSpec(
        297,
        "nnUNetTrainer_4000epochs_NoMirroring",
        class_map["total"],
        spacing_mm=3.0,
        patch_zyx=(112, 112, 128),
        strides=_halving(5),
        kernels=(CUBE,) * 5,
    ),
    298: NetworkSpec(
        298,
        "nnUNetTrainer_4000epochs_NoMirroring",
        class_map["total"],
        spacing_mm=6.0,
        patch_zyx=(80, 64, 80),
        strides=_halving(5),
        kernels=(CUBE,) * 5,
    ),
    756: NetworkSpec(
        756,
        "nnUNetTrainer_DASegOrd0_NoMirroring",
        class_map["vertebrae_mr"],
        spacing_mm=1.5,
        patch_zyx=(80, 160, 160),
        strides=(*_halving(5), (1, 2, 2)),
        kernels=(CUBE,) * 6,
        modality="MR",
    ),
}
"""Full-size networks. The patches of 298 and 756 are plausible, not known: their plans are not public.

Neither are 756's strides and kernels. They are those of TotalSegmentator's other networks for MR at 1.5 mm, 850 and
851, as programs that load these say: the last stage keeps its first axis. The sizes of the releases' zips agree.
"""


def small(spec: NetworkSpec, *, base_features: int, max_features: int, patch_zyx: Triple) -> NetworkSpec:
    """The same network with fewer features and a smaller patch."""
    return replace(spec, base_features=base_features, max_features=max_features, patch_zyx=patch_zyx)
