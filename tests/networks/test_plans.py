"""plans.json and dataset.json: what nnU-Net reads from them is what we read, and what we cannot run is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks
from openscans.errors import DamagedWeights
from openscans.networks.normalisation import CTNormalisation, ZScoreNormalisation
from openscans.weights import catalogue
from phantom.layout import CONFIGURATION, dataset_of, plans_of, training_folder
from phantom.specs import SPECS

Json = dict[str, Any]
Change = Callable[[Json, Json], None]

HU = np.random.default_rng(0).normal(0, 800, (12, 10, 11)).astype(np.float32)


def written(results: Path, dataset: int, *, new_plans: bool = False, change: Change | None = None) -> Path:
    """A training folder that holds the plans of ``dataset``, changed by ``change(plans, dataset)``."""
    plans, labels = plans_of(SPECS[dataset], new_plans=new_plans), dataset_of(SPECS[dataset])
    if change is not None:
        change(plans, labels)
    folder = training_folder(results, SPECS[dataset])
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(labels))
    return folder


def configuration(plans: Json) -> Json:
    found: Json = plans["configurations"][CONFIGURATION]
    return found


@pytest.mark.parametrize("dataset", SPECS)
def test_the_old_and_the_new_format_mean_the_same_plan(tmp_path: Path, dataset: int) -> None:
    old = networks.read_plan(written(tmp_path / "old", dataset))
    assert old == networks.read_plan(written(tmp_path / "new", dataset, new_plans=True))


@pytest.mark.parametrize("new_plans", [False, True])
@pytest.mark.parametrize("dataset", SPECS)
@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_a_plan_says_what_nnunet_reads_from_the_same_file(tmp_path: Path, dataset: int, new_plans: bool) -> None:
    handler = pytest.importorskip("nnunetv2.utilities.plans_handling.plans_handler")
    folder = written(tmp_path, dataset, new_plans=new_plans)
    plan = networks.read_plan(folder)
    manager = handler.PlansManager(str(folder / "plans.json"))
    theirs = manager.get_configuration(CONFIGURATION)
    kwargs = theirs.network_arch_init_kwargs
    labels = manager.get_label_manager(json.loads((folder / "dataset.json").read_text()))
    assert list(plan.patch_zyx) == theirs.patch_size
    assert list(plan.spacing_zyx_mm) == theirs.spacing
    assert plan.dataset_name == manager.dataset_name
    assert plan.architecture.heads == labels.num_segmentation_heads
    assert list(plan.architecture.features) == kwargs["features_per_stage"]
    assert [list(kernel) for kernel in plan.architecture.kernels] == kwargs["kernel_sizes"]
    assert [list(stride) for stride in plan.architecture.strides] == kwargs["strides"]
    assert list(plan.architecture.encoder_convolutions) == kwargs["n_conv_per_stage"]
    assert list(plan.architecture.decoder_convolutions) == kwargs["n_conv_per_stage_decoder"]
    assert plan.architecture.norm_epsilon == kwargs["norm_op_kwargs"]["eps"]


def test_every_network_s_spacing_is_that_of_totalsegmentator_s_table() -> None:
    datasets = [dataset for task in catalogue.TASKS.values() for dataset in task.datasets]
    known = {292: 1.5, 297: 3.0, 298: 6.0, 756: 1.5}
    assert {one.number: one.spacing_mm for one in datasets}.items() >= known.items()


@pytest.mark.parametrize("dataset", SPECS)
def test_labels_are_those_of_totalsegmentator_and_the_background(tmp_path: Path, dataset: int) -> None:
    assert networks.read_plan(written(tmp_path, dataset)).labels == {0: "background", **SPECS[dataset].labels}


def normalised_by_nnunet(scheme: str, plans: Json) -> NDArray[np.float32]:
    theirs = pytest.importorskip("nnunetv2.preprocessing.normalization.default_normalization_schemes")
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    result: NDArray[np.float32] = getattr(theirs, scheme)(False, properties).run(HU.copy())
    return result


def test_ct_normalisation_equals_nnunets(tmp_path: Path) -> None:
    ours = networks.read_plan(written(tmp_path, 292)).normalise
    assert isinstance(ours, CTNormalisation)
    np.testing.assert_array_equal(ours(HU), normalised_by_nnunet("CTNormalization", plans_of(SPECS[292])))


def test_z_score_normalisation_equals_nnunets(tmp_path: Path) -> None:
    ours = networks.read_plan(written(tmp_path, 756)).normalise
    assert isinstance(ours, ZScoreNormalisation)
    theirs = normalised_by_nnunet("ZScoreNormalization", plans_of(SPECS[756]))
    np.testing.assert_allclose(ours(HU), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", [CTNormalisation(-100, 100, 0, 1), ZScoreNormalisation()])
def test_normalisation_leaves_the_image_it_is_given_as_it_was(
    normalise: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    image = HU.copy()
    normalise(image)
    np.testing.assert_array_equal(image, HU)


@pytest.mark.parametrize("normalise", [CTNormalisation(-100, 100, 7, 0), ZScoreNormalisation()])
def test_an_image_of_one_value_is_normalised_to_finite_numbers(
    normalise: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    assert np.isfinite(normalise(np.full((4, 4, 4), 7, np.float32))).all()


def labels_by_number(_plans: Json, dataset: Json) -> None:
    dataset["labels"] = {str(number): name for name, number in dataset["labels"].items()}


def channels_called_modality(_plans: Json, dataset: Json) -> None:
    dataset["modality"] = dataset.pop("channel_names")


def channels_unnamed(_plans: Json, dataset: Json) -> None:
    del dataset["channel_names"]


def intensities_by_modality(plans: Json, _dataset: Json) -> None:
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")


def one_number_for_all_stages(plans: Json, _dataset: Json) -> None:
    arguments = configuration(plans)["architecture"]["arch_kwargs"]
    arguments["n_conv_per_stage"] = arguments["n_conv_per_stage_decoder"] = 2


@pytest.mark.parametrize(
    "change",
    [
        labels_by_number,
        channels_called_modality,
        channels_unnamed,
        intensities_by_modality,
        one_number_for_all_stages,
    ],
)
def test_other_ways_to_write_the_same_are_read_alike(tmp_path: Path, change: Change) -> None:
    usual = networks.read_plan(written(tmp_path / "usual", 292, new_plans=True))
    assert networks.read_plan(written(tmp_path / "other", 292, new_plans=True, change=change)) == usual


def unused_configurations(plans: Json, _dataset: Json) -> None:
    """As nnU-Net plans them beside, and as nothing would run."""
    plans["configurations"]["2d"] = {"patch_size": [512, 512], "spacing": [0.7, 0.7], "batch_size": 10**12}
    plans["configurations"]["3d_lowres"] = {"patch_size": float("nan"), "next_stage": "3d_cascade_fullres"}
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def unknown_fields(plans: Json, dataset: Json) -> None:
    configuration(plans)["architecture"]["arch_kwargs"]["dropout_op_kwargs"] = {"p": float("inf")}
    configuration(plans)["added_later"] = plans["added_later"] = dataset["added_later"] = {"a": [[[[-1]]]] * 10_000}
    dataset["training"] = [{"image": f"./imagesTr/{number}.nii.gz"} for number in range(10_000)]


def values_at_their_ends(plans: Json, _dataset: Json) -> None:
    plans["original_median_spacing_after_transp"] = [999, 1, 1]
    configuration(plans)["resampling_fn_data_kwargs"]["force_separate_z"] = True


@pytest.mark.parametrize("change", [unused_configurations, unknown_fields, values_at_their_ends])
def test_what_stands_beside_and_is_not_used_changes_nothing(tmp_path: Path, change: Change) -> None:
    usual = networks.read_plan(written(tmp_path / "usual", 292, new_plans=True))
    assert networks.read_plan(written(tmp_path / "other", 292, new_plans=True, change=change)) == usual


def test_intensities_that_nobody_uses_may_be_no_numbers(tmp_path: Path) -> None:
    def change(plans: Json, _dataset: Json) -> None:
        plans["foreground_intensity_properties_per_channel"]["0"]["std"] = float("nan")

    assert networks.read_plan(written(tmp_path, 756, change=change)).normalise == ZScoreNormalisation()


@pytest.mark.parametrize(
    ("stages", "features", "patch"), [(7, 512, [192, 192, 192]), (8, 320, [256, 256, 256]), (4, 1024, [96, 160, 160])]
)
def test_networks_larger_than_any_of_totalsegmentators_are_read(
    tmp_path: Path, stages: int, features: int, patch: list[int]
) -> None:
    def change(plans: Json, _dataset: Json) -> None:
        configuration(plans)["patch_size"] = patch
        configuration(plans)["architecture"]["arch_kwargs"] |= {
            "n_stages": stages,
            "features_per_stage": [min(32 * 2**stage, features) for stage in range(stages)],
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (min(stages, 6) - 1), *[[1, 2, 2]] * (stages - 6)],
            "n_conv_per_stage": 6,
            "n_conv_per_stage_decoder": 1,
        }

    plan = networks.read_plan(written(tmp_path, 292, new_plans=True, change=change))
    assert (len(plan.architecture.features), list(plan.patch_zyx)) == (stages, patch)


def test_the_slope_of_the_leaky_relu_is_read(tmp_path: Path) -> None:
    def change(plans: Json, _dataset: Json) -> None:
        configuration(plans)["architecture"]["arch_kwargs"]["nonlin_kwargs"]["negative_slope"] = 0.2

    architecture = networks.read_plan(written(tmp_path, 292, new_plans=True, change=change)).architecture
    usual = networks.read_plan(written(tmp_path / "usual", 292)).architecture
    assert architecture == replace(usual, leaky_slope=0.2)


def residual_encoder(plans: Json, _dataset: Json) -> None:
    configuration(plans)["UNet_class_name"] = "ResidualEncoderUNet"


def exchanged_axes(plans: Json, _dataset: Json) -> None:
    plans["transpose_forward"] = [2, 0, 1]


def two_channels(plans: Json, dataset: Json) -> None:
    dataset["channel_names"] = {"0": "T1", "1": "T2"}
    configuration(plans)["normalization_schemes"] *= 2


def regions(_plans: Json, dataset: Json) -> None:
    dataset["labels"] = {"background": 0, "spine": [1, 2], "sacrum": [2]}


def gap_in_labels(_plans: Json, dataset: Json) -> None:
    dataset["labels"] = {"background": 0, "one": 1, "three": 3}


def unknown_normalisation(plans: Json, _dataset: Json) -> None:
    configuration(plans)["normalization_schemes"] = ["RGBTo01Normalization"]


def flat_patch(plans: Json, _dataset: Json) -> None:
    configuration(plans)["patch_size"] = [128, 128]


def too_few_kernels(plans: Json, _dataset: Json) -> None:
    configuration(plans)["conv_kernel_sizes"].pop()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (residual_encoder, "ResidualEncoderUNet"),
        (exchanged_axes, "exchanged axes"),
        (two_channels, "several images"),
        (regions, "overlapping regions"),
        (gap_in_labels, "not consecutive"),
        (unknown_normalisation, "RGBTo01Normalization"),
        (flat_patch, "three dimensions"),
        (too_few_kernels, "stages do not fit"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_reason(tmp_path: Path, change: Change, sentence: str) -> None:
    with pytest.raises(DamagedWeights, match=sentence):
        networks.read_plan(written(tmp_path, 292, change=change))


def test_layers_that_are_not_known_are_refused(tmp_path: Path) -> None:
    def change(plans: Json, _dataset: Json) -> None:
        configuration(plans)["architecture"]["arch_kwargs"]["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm3d"

    with pytest.raises(DamagedWeights, match="layers"):
        networks.read_plan(written(tmp_path, 292, new_plans=True, change=change))


@pytest.mark.parametrize("key", ["configurations", "transpose_forward", "dataset_name"])
def test_plans_without_a_key_are_damaged(tmp_path: Path, key: str) -> None:
    with pytest.raises(DamagedWeights, match="lacks something"):
        networks.read_plan(written(tmp_path, 292, change=lambda plans, _dataset: plans.pop(key)))


@pytest.mark.parametrize(
    "key", ["patch_size", "spacing", "normalization_schemes", "UNet_class_name", "pool_op_kernel_sizes"]
)
def test_a_configuration_without_a_key_is_damaged(tmp_path: Path, key: str) -> None:
    with pytest.raises(DamagedWeights, match="lacks something"):
        networks.read_plan(written(tmp_path, 292, change=lambda plans, _dataset: configuration(plans).pop(key)))


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_file_that_is_no_json_object_is_damaged(tmp_path: Path, content: str) -> None:
    folder = written(tmp_path, 292)
    (folder / "plans.json").write_text(content)
    with pytest.raises(DamagedWeights, match=r"plans\.json"):
        networks.read_plan(folder)


def test_a_missing_file_is_damaged(tmp_path: Path) -> None:
    folder = written(tmp_path, 292)
    (folder / "dataset.json").unlink()
    with pytest.raises(DamagedWeights, match=r"dataset\.json"):
        networks.read_plan(folder)
