"""Writes weights folders in TotalSegmentator's own layout, for networks that were trained on phantoms or never.

Knows nnU-Net's files, plans and modules; nothing of the service. TotalSegmentator and the service both load the result.
Only new weights need PyTorch; the plans, and zips of weights that are there, do without.
"""

import json
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phantom.specs import SPECS, NetworkSpec

if TYPE_CHECKING:
    import torch

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"
NOTICE = "no medical use: these weights were trained on synthetic phantoms only, or are random"
JUNK = bytes(4096)
"""The content of entries in a release's zip that no model needs."""


def build_module(spec: NetworkSpec) -> "torch.nn.Module":
    """The network as nnU-Net builds it, with the weights that its constructor draws."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(
        input_channels=1,
        n_stages=len(spec.strides),
        features_per_stage=list(spec.features),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=[list(kernel) for kernel in spec.kernels],
        strides=[list(stride) for stride in spec.strides],
        n_conv_per_stage=[2] * len(spec.strides),
        num_classes=spec.heads,
        n_conv_per_stage_decoder=[2] * (len(spec.strides) - 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )


def random_state_dict(spec: NetworkSpec, seed: int) -> dict[str, "torch.Tensor"]:
    """Random weights (He, as nnU-Net initialises) whose logits vary, so that every class wins somewhere."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_module(spec)
        for part in module.modules():
            if isinstance(part, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
                torch.nn.init.kaiming_normal_(part.weight, a=0.01)
                torch.nn.init.normal_(part.bias, std=0.1)
            if isinstance(part, torch.nn.InstanceNorm3d):
                torch.nn.init.uniform_(part.weight, 0.7, 1.3)
                torch.nn.init.normal_(part.bias, std=0.2)
        return dict(module.state_dict())


def training_folder(results: Path, spec: NetworkSpec) -> Path:
    """Where a training of ``spec`` lies under ``results``."""
    return results / spec.folder / f"{spec.trainer}__{PLANS}__{CONFIGURATION}"


def write_training_folder(
    results: Path, spec: NetworkSpec, state_dict: Mapping[str, "torch.Tensor"], *, new_plans: bool = False
) -> Path:
    """Write plans.json, dataset.json, dataset_fingerprint.json and fold_0/checkpoint_final.pth; returns their folder.

    ``new_plans``: plans.json with an ``architecture``, as newer nnU-Nets write it, in the place of the flat one.
    """
    import torch

    folder = training_folder(results, spec)
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    plans, dataset = plans_of(spec, new_plans=new_plans), dataset_of(spec)
    for name, content in (("plans", plans), ("dataset", dataset), ("dataset_fingerprint", {"notice": NOTICE})):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
    torch.save(_checkpoint(spec, state_dict, plans, dataset), folder / "fold_0" / "checkpoint_final.pth")
    return folder


def plans_of(spec: NetworkSpec, *, new_plans: bool = False) -> dict[str, Any]:
    """plans.json of ``spec``: the old flat format, or the new one."""
    scheme = "CTNormalization" if spec.modality == "CT" else "ZScoreNormalization"
    low, high = spec.clip_hu
    intensities = {"mean": spec.mean_hu, "std": spec.std_hu, "percentile_00_5": low, "percentile_99_5": high}
    configuration = {
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(spec.patch_zyx),
        "median_image_size_in_voxels": [200.0, 200.0, 200.0],
        "spacing": [spec.spacing_mm] * 3,
        "normalization_schemes": [scheme],
        "use_mask_for_norm": [False],
        **_resampling(),
        **(_architecture(spec) if new_plans else _flat_architecture(spec)),
        "batch_dice": False,
    }
    return {
        "dataset_name": spec.folder,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": [spec.spacing_mm] * 3,
        "original_median_shape_after_transp": [200, 200, 200],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }


def _resampling() -> dict[str, Any]:
    plan: dict[str, Any] = {}
    for what, is_labels, task in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)):
        plan[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        arguments = {"is_seg": is_labels, "order": task, "order_z": 0, "force_separate_z": None}
        plan[f"resampling_fn_{what}_kwargs"] = arguments
    return plan


def _flat_architecture(spec: NetworkSpec) -> dict[str, Any]:
    stages = len(spec.strides)
    return {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": spec.base_features,
        "n_conv_per_stage_encoder": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "num_pool_per_axis": [sum(stride[axis] > 1 for stride in spec.strides) for axis in range(3)],
        "pool_op_kernel_sizes": [list(stride) for stride in spec.strides],
        "conv_kernel_sizes": [list(kernel) for kernel in spec.kernels],
        "unet_max_num_features": spec.max_features,
    }


def _architecture(spec: NetworkSpec) -> dict[str, Any]:
    stages = len(spec.strides)
    return {
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(spec.features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [list(kernel) for kernel in spec.kernels],
                "strides": [list(stride) for stride in spec.strides],
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    }


def dataset_of(spec: NetworkSpec) -> dict[str, Any]:
    """dataset.json of ``spec``."""
    return {
        "channel_names": {"0": spec.modality},
        "labels": {"background": 0} | {name: number for number, name in sorted(spec.labels.items())},
        "numTraining": 0,
        "file_ending": ".nii.gz",
        "notice": NOTICE,
    }


def _checkpoint(
    spec: NetworkSpec, state_dict: Mapping[str, "torch.Tensor"], plans: Mapping[str, Any], dataset: Mapping[str, Any]
) -> dict[str, Any]:
    """What nnU-Net's trainer saves: the weights, the optimiser's state, logs with numpy's numbers, its arguments."""
    import torch

    return {
        "network_weights": OrderedDict(state_dict),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": [{"params": [0]}]},
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(-0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"plans": dict(plans), "configuration": CONFIGURATION, "fold": 0, "dataset_json": dict(dataset)},
        "trainer_name": spec.trainer,
        "inference_allowed_mirroring_axes": None,
    }


def write_random(results: Path, dataset: int, *, seed: int = 0, background: float = 0.0) -> Path:
    """A full-size network with random weights, in its place under ``results``.

    ``background`` is added to the logits of label 0: without it, nearly every voxel gets some other label.
    """
    spec = SPECS[dataset]
    state_dict = random_state_dict(spec, seed)
    state_dict[f"decoder.seg_layers.{len(spec.strides) - 2}.bias"][0] += background
    return write_training_folder(results, spec, state_dict)


def zip_weights(dataset_folder: Path, zip_path: Path) -> Path:
    """The release's zip of a Dataset… folder, with the junk that the real ones hold."""
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(zip_path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"__MACOSX/{dataset_folder.name}/._plans.json", JUNK)
        archive.writestr(f"{dataset_folder.name}/.DS_Store", JUNK)
        for path in sorted(dataset_folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(dataset_folder.parent))
    return zip_path
