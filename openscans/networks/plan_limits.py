"""What plans.json and dataset.json may say: one table of their fields, and how such a file is read in bounded memory.

Wide enough for whatever nnU-Net plans, and too narrow for a network that takes a machine's memory or computes with what
is no number. Knows fields, not what they mean together (`plans`). Fields that stand in no table are never read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from openscans.errors import DamagedWeights
from openscans.system.regular_files import open_regular

MOST_BYTES = 2**20
"""Of one of the files. Plans have some ten thousand; a dataset.json that names ten thousand cases has as many as this.
To read them takes 35 ms at the worst, in which no other thread of the process runs, and 40 MB."""

MOST_STAGES = 12
"""nnU-Net plans up to eight; each halves the patch."""

MOST_CONVOLUTIONS = 32
"""Of one stage. nnU-Net plans two."""

MOST_FEATURES = 4096
"""Of one stage. nnU-Net plans at most 320, of flat networks 512."""

MOST_LABELS = 256
"""Label maps are written as uint8."""

MOST_CHANNELS = 64

DEEPEST = 3
"""Lists of lists of numbers: a stage's kernel in the list of all. What lies deeper is no number."""


class Rule(Protocol):
    """What a field may hold."""

    def allows(self, value: object) -> bool: ...


@dataclass(frozen=True)
class Numbers:
    """A number, or lists of them: each from ``low`` to ``high``, and ``most`` of them together."""

    low: float
    high: float
    most: int = 1
    whole: bool = True
    odd: bool = False

    def allows(self, value: object) -> bool:
        numbers = list(islice(_leaves(value), self.most + 1))
        return len(numbers) <= self.most and all(map(self._allows_one, numbers))

    def _allows_one(self, number: object) -> bool:
        # True is a whole number to Python.
        if isinstance(number, bool) or not isinstance(number, int if self.whole else (int, float)):
            return False
        # Written so that what is no number is refused too; a whole number of any size can be compared.
        return self.low <= number <= self.high and not (self.odd and number % 2 == 0)


@dataclass(frozen=True)
class Words:
    """A text of a line, or a list of them."""

    most: int = 1
    longest: int = 200

    def allows(self, value: object) -> bool:
        words = list(islice(_leaves(value), self.most + 1))
        return len(words) <= self.most and all(self._allows_one(word) for word in words)

    def _allows_one(self, word: object) -> bool:
        return isinstance(word, str) and len(word) <= self.longest and word.isprintable()


@dataclass(frozen=True)
class Flags:
    """true or false, or a list of them."""

    most: int = 1

    def allows(self, value: object) -> bool:
        flags = list(islice(_leaves(value), self.most + 1))
        return len(flags) <= self.most and all(isinstance(flag, bool) for flag in flags)


def _real(low: float, high: float, most: int = 1) -> Numbers:
    return Numbers(low, high, most, whole=False)


AXES = Numbers(0, 2, most=3)
KERNELS = Numbers(1, 15, most=3 * MOST_STAGES, odd=True)
STRIDES = Numbers(1, 8, most=3 * MOST_STAGES)
CONVOLUTIONS = Numbers(1, MOST_CONVOLUTIONS, most=MOST_STAGES)
SPACINGS_MM = _real(0.01, 100, most=3)
INTENSITY = _real(-1e9, 1e9)
ORDER = Numbers(0, 5)

Table = Mapping[str, Rule]
"""By the way to a field, key by key with dots between."""


def _resampling(what: str) -> Table:
    name = f"resampling_fn_{what}"
    kwargs: Table = {"is_seg": Flags(), "order": ORDER, "order_z": ORDER}
    return {name: Words(), **{f"{name}_kwargs.{key}": rule for key, rule in kwargs.items()}}


PLANS: Table = {
    "dataset_name": Words(),
    "plans_name": Words(),
    "image_reader_writer": Words(),
    "experiment_planner_used": Words(),
    "label_manager": Words(),
    "transpose_forward": AXES,
    "transpose_backward": AXES,
    # Pictures without a spacing are said to lie 999 mm apart.
    "original_median_spacing_after_transp": _real(1e-4, 1e4, most=3),
    "original_median_shape_after_transp": _real(1, 1e6, most=3),
}

CONFIGURATION: Table = {
    "data_identifier": Words(),
    "preprocessor_name": Words(),
    "batch_size": Numbers(1, 10**6),
    "batch_dice": Flags(),
    "patch_size": Numbers(1, 1024, most=3),
    "median_image_size_in_voxels": _real(1, 1e6, most=3),
    "spacing": SPACINGS_MM,
    "normalization_schemes": Words(most=MOST_CHANNELS),
    "use_mask_for_norm": Flags(most=MOST_CHANNELS),
    **_resampling("data"),
    **_resampling("seg"),
    **_resampling("probabilities"),
    # The flat format of older nnU-Nets.
    "UNet_class_name": Words(),
    "UNet_base_num_features": Numbers(1, MOST_FEATURES),
    "unet_max_num_features": Numbers(1, MOST_FEATURES),
    "n_conv_per_stage_encoder": CONVOLUTIONS,
    "n_conv_per_stage_decoder": CONVOLUTIONS,
    "num_pool_per_axis": Numbers(0, MOST_STAGES, most=3),
    "pool_op_kernel_sizes": STRIDES,
    "conv_kernel_sizes": KERNELS,
    # The format of newer ones.
    "architecture.network_class_name": Words(),
    "architecture._kw_requires_import": Words(most=64),
    "architecture.arch_kwargs.n_stages": Numbers(2, MOST_STAGES),
    "architecture.arch_kwargs.features_per_stage": Numbers(1, MOST_FEATURES, most=MOST_STAGES),
    "architecture.arch_kwargs.conv_op": Words(),
    "architecture.arch_kwargs.kernel_sizes": KERNELS,
    "architecture.arch_kwargs.strides": STRIDES,
    "architecture.arch_kwargs.n_conv_per_stage": CONVOLUTIONS,
    "architecture.arch_kwargs.n_conv_per_stage_decoder": CONVOLUTIONS,
    "architecture.arch_kwargs.conv_bias": Flags(),
    "architecture.arch_kwargs.norm_op": Words(),
    "architecture.arch_kwargs.norm_op_kwargs.eps": _real(1e-12, 1),
    "architecture.arch_kwargs.norm_op_kwargs.affine": Flags(),
    "architecture.arch_kwargs.nonlin": Words(),
    "architecture.arch_kwargs.nonlin_kwargs.negative_slope": _real(0, 1),
    "architecture.arch_kwargs.nonlin_kwargs.inplace": Flags(),
}
"""Of the one configuration that is run; others beside it are never looked at."""

INTENSITIES: Table = {
    "mean": INTENSITY,
    "median": INTENSITY,
    "min": INTENSITY,
    "max": INTENSITY,
    "percentile_00_5": INTENSITY,
    "percentile_99_5": INTENSITY,
    "std": _real(1e-6, 1e9),
}
"""Of the one channel, where a CT is normalised by them."""

DATASET: Table = {
    "channel_names.0": Words(),
    "modality.0": Words(),
    "numTraining": Numbers(0, 10**9),
    "file_ending": Words(),
}

LABEL_NAME, LABEL_NUMBER = Words(), Numbers(0, MOST_LABELS - 1)


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file at ``path``. Raises DamagedWeights."""
    dataset = dataset_name(path.parent)
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DamagedWeights(f"{path.name} of {dataset} is larger than that of any network.")
        found = json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedWeights(f"{path.name} of {dataset} cannot be read.") from error
    if not isinstance(found, dict):
        raise DamagedWeights(f"{path.name} of {dataset} is no JSON object.")
    return found


def dataset_name(training: Path) -> str:
    """The name of the dataset whose training lies in ``training``; also while it is not in its place yet."""
    return training.parent.stem


def check(fields: Mapping[str, Any], table: Table, file_name: str) -> None:
    """Raise DamagedWeights unless every field of ``table`` that is there is what it may be."""
    for way, rule in table.items():
        for value in _at(fields, way.split(".")):
            if not rule.allows(value):
                raise DamagedWeights(f"{file_name} holds a {way.rpartition('.')[2]} that no network has.")


def _at(fields: object, way: list[str]) -> Iterator[object]:
    """The value that ``way`` leads to; nothing where there is none."""
    for key in way:
        if not isinstance(fields, Mapping) or key not in fields:
            return
        fields = fields[key]
    yield fields


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    """``value`` itself, or all that lies in the lists that it is made of."""
    if isinstance(value, list) and depth < DEEPEST:
        for one in value:
            yield from _leaves(one, depth + 1)
    else:
        yield value
