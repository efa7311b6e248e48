"""The small MR network through the pipeline: the levels of spines that it has never seen, in T1 and in T2."""

from pathlib import Path

import numpy as np
import pytest

from inference import Pipeline
from openscans.types import Detection, DetectionTask, InferenceOptions, TrainedModel, Vertebra
from openscans.volumes import Volume
from phantom import drawing, evaluate, layout, specs, spine
from phantom.demo import WEIGHTS
from phantom.files import reorient, write_nifti

SPEC = specs.SPECS[756]
THORACOLUMBAR, LUMBAR = spine.LEVELS[14:20], spine.LEVELS[18:]
"""T8 to L1, T12 to S1."""

IN_PLANE_MM = 1.0

UNSEEN = range(20, 28)
"""Spines that were neither trained on nor looked at to decide when the training was enough."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(InferenceOptions(None, "float32", tmp_path_factory.mktemp("compiled")))


def detected(pipeline: Pipeline, volume: Volume, path: Path) -> Detection:
    """What is found in ``volume``, stored as scanners store sagittal slices."""
    write_nifti(path, *reorient(volume.voxels, volume.affine_lps, "PIR"))
    model = TrainedModel(SPEC.folder, layout.training_folder(WEIGHTS, SPEC), "phantom", SPEC.spacing_mm, step=0.5)
    task = DetectionTask(path, "vertebrae_mr", model, None, device="cpu", modality="MR")
    return pipeline.detect(task, lambda *_: None)


def whole(detection: Detection) -> list[Vertebra]:
    return [one for one in detection.vertebrae if one.volume_ml > evaluate.CRUMB_ML]


@pytest.mark.parametrize("seed", UNSEEN)
def test_every_level_of_an_unseen_spine_is_right_in_t1_and_in_t2(pipeline: Pipeline, seed: int, tmp_path: Path) -> None:
    levels = (THORACOLUMBAR, LUMBAR)[seed // 2 % 2]
    phantom, volume, _ = evaluate.mr_scan(seed, levels, in_plane_mm=IN_PLANE_MM)
    found = whole(detected(pipeline, volume, tmp_path / "mr.nii.gz"))
    # 756 has no S1: it is part of the sacrum.
    assert [one.label for one in found] == [name for name in levels if name != "S1"]
    truth = drawing.truth(phantom)
    for one in found:
        center_mm = (one.center_mm.x, one.center_mm.y, one.center_mm.z)
        assert np.linalg.norm(np.subtract(center_mm, truth[one.label].center_mm)) <= 3.0


@pytest.mark.parametrize("scale", [1 / 16, 100.0])
def test_the_levels_do_not_depend_on_the_unit_of_the_signal(pipeline: Pipeline, scale: float, tmp_path: Path) -> None:
    _, volume, _ = evaluate.mr_scan(23, LUMBAR, in_plane_mm=IN_PLANE_MM)
    scaled = Volume((volume.voxels * scale).astype(np.float32), volume.affine_lps)
    found = detected(pipeline, scaled, tmp_path / "mr.nii.gz")
    assert [one.label for one in whole(found)] == list(LUMBAR[:-1])
