"""What plans.json and dataset.json say about a network; knows nnU-Net's two plans formats, not its weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from openscans.errors import DamagedWeights
from openscans.networks import plan_limits
from openscans.networks.normalisation import CTNormalisation, Normalisation, ZScoreNormalisation
from openscans.networks.plan_limits import MOST_LABELS
from openscans.types import TrainedModel

CONFIGURATION = "3d_fullres"

Triple = tuple[int, int, int]

MOST_PATCH_VOXELS = 2**25
"""320 along each axis, twice what nnU-Net plans for the largest cards."""

SPACING_TOLERANCE_MM = 0.001
"""What a spacing may lose where it is written down. Over a patch of 160 samples it adds up to a tenth of one."""


@dataclass(frozen=True)
class Architecture:
    """A PlainConvUNet: per stage its features, kernel (z, y, x), stride (z, y, x) and convolutions."""

    features: tuple[int, ...]
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    encoder_convolutions: tuple[int, ...]
    decoder_convolutions: tuple[int, ...]
    norm_epsilon: float
    leaky_slope: float
    heads: int

    def __post_init__(self) -> None:
        stages = len(self.features)
        lists = (self.kernels, self.strides, self.encoder_convolutions)
        if stages < 2 or any(len(one) != stages for one in lists) or len(self.decoder_convolutions) != stages - 1:
            raise DamagedWeights("plans.json describes a network whose stages do not fit together.")
        if self.strides[0] != (1, 1, 1):
            raise DamagedWeights("plans.json describes a network whose labels are coarser than its image.")

    def multiply_adds(self, voxels: int) -> int:
        """Multiplications with their additions in all convolutions over a patch of so many ``voxels``."""
        sizes = [voxels]
        for stride in self.strides[1:]:
            sizes.append(sizes[-1] // math.prod(stride))
        cubes = [math.prod(kernel) * size for kernel, size in zip(self.kernels, sizes, strict=True)]
        total, channels = 0, 1
        for own, cube, count in zip(self.features, cubes, self.encoder_convolutions, strict=True):
            total += (channels + (count - 1) * own) * own * cube
            channels = own
        for stage, count in enumerate(self.decoder_convolutions, start=2):
            own, cube = self.features[-stage], cubes[-stage]
            # Enlarged, joined with the skip, and convolved.
            total += channels * own * sizes[-stage] + (2 * own + (count - 1) * own) * own * cube
            channels = own
        return total + channels * self.heads * sizes[0]


@dataclass(frozen=True)
class Plan:
    """All that is needed to run a network, beside its weights."""

    dataset_name: str
    spacing_zyx_mm: tuple[float, float, float]
    patch_zyx: Triple
    normalise: Normalisation
    architecture: Architecture
    labels: Mapping[int, str]

    def __post_init__(self) -> None:
        steps = (math.prod(along) for along in zip(*self.architecture.strides, strict=True))
        if any(size < 1 or size % step for size, step in zip(self.patch_zyx, steps, strict=True)):
            raise DamagedWeights("plans.json describes a patch that its network cannot halve so often.")
        if math.prod(self.patch_zyx) > MOST_PATCH_VOXELS:
            raise DamagedWeights("plans.json describes a patch that is larger than that of any network.")

    @property
    def patch_multiply_adds(self) -> int:
        """Multiplications with their additions in all convolutions over a patch: half its float operations."""
        return self.architecture.multiply_adds(math.prod(self.patch_zyx))


def read_plan(folder: Path) -> Plan:
    """The plan of the training in ``folder``. Raises DamagedWeights where it is broken or of an unknown kind."""
    plans, dataset = plan_limits.read_json(folder / "plans.json"), plan_limits.read_json(folder / "dataset.json")
    try:
        return _plan(plans, dataset)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedWeights(
            f"plans.json or dataset.json of {plan_limits.dataset_name(folder)} lacks something or holds something "
            "unexpected."
        ) from error


def plan_of(model: TrainedModel) -> Plan:
    """The plan of ``model``. Raises DamagedWeights where it cannot be read, or is for another spacing than expected.

    TotalSegmentator resamples to its own table's spacing first, and where the plan's differs once more to that; run at
    one of the two alone, the network would be wrong without a word.
    """
    plan = read_plan(model.folder)
    if any(abs(found - model.spacing_mm) > SPACING_TOLERANCE_MM for found in plan.spacing_zyx_mm):
        found_mm = " × ".join(f"{found:g}" for found in plan.spacing_zyx_mm)
        raise DamagedWeights(f"{model.dataset} is for samples {found_mm} mm apart, expected {model.spacing_mm:g} mm.")
    return plan


def _plan(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> Plan:
    configuration = plans["configurations"][CONFIGURATION]
    plan_limits.check(plans, plan_limits.PLANS, "plans.json")
    plan_limits.check(configuration, plan_limits.CONFIGURATION, "plans.json")
    plan_limits.check(dataset, plan_limits.DATASET, "dataset.json")
    labels = _labels(dataset)
    if list(plans["transpose_forward"]) != [0, 1, 2]:
        raise DamagedWeights("These weights were trained on images with exchanged axes, which are not run here.")
    if configuration.get("previous_stage"):
        raise DamagedWeights("These weights refine another network's labels (a cascade), which is not run here.")
    patch = _triple(configuration["patch_size"])
    z, y, x = (float(spacing) for spacing in configuration["spacing"])
    return Plan(
        dataset_name=str(plans["dataset_name"]),
        spacing_zyx_mm=(z, y, x),
        patch_zyx=patch,
        normalise=_normalisation(plans, configuration, dataset),
        architecture=_architecture(configuration, heads=len(labels)),
        labels=labels,
    )


def _labels(dataset: Mapping[str, Any]) -> dict[int, str]:
    """Label number → name. nnU-Net writes name → number, and its first version number → name."""
    if len(dataset["labels"]) > MOST_LABELS:
        raise DamagedWeights(f"dataset.json names {len(dataset['labels'])} labels; at most {MOST_LABELS} are run here.")
    labels: dict[int, str] = {}
    for key, value in dataset["labels"].items():
        name, number = (value, key) if str(key).isdigit() else (key, value)
        if not isinstance(number, int | str):
            raise DamagedWeights("These weights were trained on overlapping regions, which are not run here.")
        number = int(number) if isinstance(number, str) else number
        if not plan_limits.LABEL_NAME.allows(name) or not plan_limits.LABEL_NUMBER.allows(number):
            raise DamagedWeights("dataset.json holds labels that no network has.")
        labels[number] = str(name)
    if sorted(labels) != list(range(len(labels))):
        raise DamagedWeights("The label numbers in dataset.json are not consecutive.")
    return labels


def _normalisation(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], dataset: Mapping[str, Any]
) -> Normalisation:
    channels = dataset.get("channel_names", dataset.get("modality", {"0": "CT"}))
    schemes = configuration["normalization_schemes"]
    if len(channels) != 1 or len(schemes) != 1:
        raise DamagedWeights("These weights want several images at once, which are not run here.")
    if schemes[0] == "ZScoreNormalization":
        return ZScoreNormalisation(nonzero_only=any(configuration["use_mask_for_norm"]))
    if schemes[0] != "CTNormalization":
        raise DamagedWeights(f"These weights want their image normalised by {schemes[0]}, which is not known here.")
    key = "foreground_intensity_properties_per_channel"
    statistics = plans.get(key) or plans["foreground_intensity_properties_by_modality"]
    channel = statistics["0"]
    plan_limits.check(channel, plan_limits.INTENSITIES, "plans.json")
    low, high = float(channel["percentile_00_5"]), float(channel["percentile_99_5"])
    if low >= high:
        raise DamagedWeights("plans.json describes a window of intensities that holds none.")
    return CTNormalisation(
        low=low,
        high=high,
        mean=float(channel["mean"]),
        std=float(channel["std"]),
    )


def _architecture(configuration: Mapping[str, Any], *, heads: int) -> Architecture:
    described = configuration.get("architecture")
    name, arguments = (
        (described["network_class_name"], described["arch_kwargs"]) if described else _from_flat_plans(configuration)
    )
    if str(name).rsplit(".", 1)[-1] != "PlainConvUNet":
        raise DamagedWeights(f"These weights are of a {str(name).rsplit('.', 1)[-1]}; only PlainConvUNet is run here.")
    convolution = str(arguments["conv_op"]).rsplit(".", 1)[-1]
    norm, nonlinearity = (str(arguments[key]).rsplit(".", 1)[-1] for key in ("norm_op", "nonlin"))
    if (convolution, norm, nonlinearity) != ("Conv3d", "InstanceNorm3d", "LeakyReLU"):
        raise DamagedWeights("These weights are of a network with layers that are not known here.")
    stages = int(arguments["n_stages"])
    return Architecture(
        features=tuple(int(count) for count in arguments["features_per_stage"]),
        kernels=tuple(_triple(kernel) for kernel in arguments["kernel_sizes"]),
        strides=tuple(_triple(stride) for stride in arguments["strides"]),
        encoder_convolutions=_per_stage(arguments["n_conv_per_stage"], stages),
        decoder_convolutions=_per_stage(arguments["n_conv_per_stage_decoder"], stages - 1),
        norm_epsilon=float((arguments.get("norm_op_kwargs") or {}).get("eps", 1e-5)),
        leaky_slope=float((arguments.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)),
        heads=heads,
    )


def _from_flat_plans(configuration: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture that the flat format of older nnU-Nets means (`plans_handler.ConfigurationManager`)."""
    encoder = configuration["n_conv_per_stage_encoder"]
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return configuration["UNet_class_name"], {
        "n_stages": len(encoder),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(encoder))],
        "conv_op": "Conv3d",
        "norm_op": "InstanceNorm3d",
        "nonlin": "LeakyReLU",
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage": encoder,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
    }


def _triple(values: int | Sequence[int]) -> Triple:
    if isinstance(values, int):
        return values, values, values
    if len(values) != 3:
        raise DamagedWeights("These weights are of a flat network; only three dimensions are run here.")
    return cast("Triple", tuple(int(value) for value in values))


def _per_stage(values: int | Sequence[int], stages: int) -> tuple[int, ...]:
    return (values,) * stages if isinstance(values, int) else tuple(int(value) for value in values)
