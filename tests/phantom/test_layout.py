"""Weights folders that are written here: nnU-Net's predictor, as TotalSegmentator calls it, loads and runs them."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from totalsegmentator.map_tasks_config import TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS
from totalsegmentator.map_to_binary import class_map, class_map_5_parts

from phantom import layout, specs
from tests import small_networks

NOT_FLAT = pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
SMALL = [small_networks.CT, small_networks.VERTEBRAE, small_networks.MR]


def loaded(folder: Path) -> nnUNetPredictor:
    """nnU-Net's predictor with the arguments that TotalSegmentator gives it."""
    predictor = nnUNetPredictor(tile_step_size=0.8, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=[0], checkpoint_name="checkpoint_final.pth")
    return predictor


@NOT_FLAT
@pytest.mark.parametrize("new_plans", [False, True])
@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: str(spec.dataset))
def test_nnunets_predictor_loads_the_weights_that_were_written(
    tmp_path: Path, spec: specs.NetworkSpec, new_plans: bool
) -> None:
    predictor = loaded(small_networks.write(tmp_path, spec, new_plans=new_plans))
    expected = layout.random_state_dict(spec, 0)
    found = predictor.network.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert predictor.trainer_name == spec.trainer


@NOT_FLAT
def test_nnunets_predictor_runs_what_was_written(tmp_path: Path) -> None:
    predictor = loaded(small_networks.write(tmp_path, small_networks.MR))
    image = np.random.default_rng(0).normal(0, 300, (1, 12, 40, 40)).astype(np.float32)
    labels = predictor.predict_single_npy_array(image, {"spacing": [1.5, 1.5, 1.5]})
    assert labels.shape == image.shape[1:]
    assert labels.max() <= len(small_networks.MR.labels)


@pytest.mark.parametrize("spec", specs.SPECS.values(), ids=lambda spec: str(spec.dataset))
def test_folders_are_named_as_totalsegmentators(tmp_path: Path, spec: specs.NetworkSpec) -> None:
    folder = layout.training_folder(tmp_path, spec)
    assert folder.parent == tmp_path / TASK_ID_WEIGHTS_CONFIGS[spec.dataset]["foldername"]
    assert folder.name.split("__") == [spec.trainer, "nnUNetPlans", "3d_fullres"]


@pytest.mark.parametrize(("dataset", "millions"), [(292, 31.2), (297, 16.6), (298, 16.6), (756, 30.8)])
def test_networks_have_as_many_parameters_as_the_sizes_of_the_real_zips_tell(dataset: int, millions: float) -> None:
    with torch.device("meta"):
        module = layout.build_module(specs.SPECS[dataset])
    assert sum(part.numel() for part in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def trainers(config: object) -> list[tuple[object, str]]:
    """(task id or ids, trainer) of every setting in TotalSegmentator's nested dictionary."""
    if not isinstance(config, dict):
        return []
    own = [(config["task_id"], config["trainer"])] if {"task_id", "trainer"} <= set(config) else []
    return own + [pair for value in config.values() for pair in trainers(value)]


@pytest.mark.parametrize("spec", specs.SPECS.values(), ids=lambda spec: str(spec.dataset))
def test_trainers_are_totalsegmentators(spec: specs.NetworkSpec) -> None:
    listed = {
        trainer
        for task, trainer in trainers(TASK_CONFIGS)
        if task == spec.dataset or (isinstance(task, list) and spec.dataset in task)
    }
    assert listed == {spec.trainer}


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (292, class_map_5_parts["class_map_part_vertebrae"]),
        (297, class_map["total"]),
        (298, class_map["total"]),
        (756, class_map["vertebrae_mr"]),
    ],
)
def test_labels_are_totalsegmentators(tmp_path: Path, dataset: int, expected: dict[int, str]) -> None:
    spec = specs.small(specs.SPECS[dataset], base_features=2, max_features=4, patch_zyx=(32, 64, 64))
    labels = json.loads((small_networks.write(tmp_path, spec) / "dataset.json").read_text())["labels"]
    assert labels.pop("background") == 0
    assert {number: name for name, number in labels.items()} == expected


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_own_random_numbers_alone() -> None:
    torch.manual_seed(5)
    first = layout.random_state_dict(small_networks.MR, 1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    second, other = layout.random_state_dict(small_networks.MR, 1), layout.random_state_dict(small_networks.MR, 2)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_written_files_say_that_they_have_no_medical_use(tmp_path: Path) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR)
    assert "no medical use" in json.loads((folder / "dataset.json").read_text())["notice"]


def test_a_zip_holds_the_tree_and_the_junk_of_a_release(tmp_path: Path) -> None:
    folder = small_networks.write(tmp_path / "results", small_networks.MR)
    path = layout.zip_weights(folder.parent, tmp_path / "releases" / "weights.zip")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "unpacked")
    root = folder.parent.name
    junk = {name for name in names if name.startswith("__MACOSX/") or name.endswith(".DS_Store")}
    assert len(junk) == 2
    assert names - junk == {
        f"{root}/{folder.name}/{name}"
        for name in ("plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0/checkpoint_final.pth")
    }
    unpacked = tmp_path / "unpacked" / root / folder.name
    for name in ("plans.json", "fold_0/checkpoint_final.pth"):
        assert (unpacked / name).read_bytes() == (folder / name).read_bytes()
