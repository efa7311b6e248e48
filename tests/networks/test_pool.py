"""Networks that load while something else is done: each once, and again where it failed; no file read twice."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from openscans.errors import DamagedWeights
from openscans.networks.checkpoint import CHECKPOINT
from openscans.networks.pool import NetworkPool
from openscans.types import InferenceOptions, TrainedModel
from phantom import drawing, grid, spine
from phantom.files import write_nifti
from tests import small_networks
from tests.live_server import eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pool(tmp_path: Path) -> NetworkPool:
    return NetworkPool(InferenceOptions(1, "float32", tmp_path / "compiled"))


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    folder = small_networks.write(tmp_path, small_networks.CT)
    return TrainedModel(folder.parent.name, folder, "0" * 64, small_networks.CT.spacing_mm, step=0.5)


def test_a_network_is_loaded_once(pool: NetworkPool, model: TrainedModel) -> None:
    pool.prepare(model, "cpu")
    network = pool.take(model, "cpu")
    pool.prepare(model, "cpu")
    assert pool.take(model, "cpu") is network


def test_a_network_that_was_not_prepared_is_loaded_when_it_is_taken(pool: NetworkPool, model: TrainedModel) -> None:
    assert pool.take(model, "cpu").plan.patch_zyx == small_networks.CT.patch_zyx


@pytest.mark.parametrize("file", ["plans.json", CHECKPOINT])
def test_damaged_weights_are_told_and_tried_again_when_they_are_whole(
    pool: NetworkPool, model: TrainedModel, file: str
) -> None:
    damaged = model.folder / file
    whole = damaged.read_bytes()
    damaged.write_bytes(b"{")
    with pytest.raises(DamagedWeights):
        pool.take(model, "cpu")
    damaged.write_bytes(whole)
    assert pool.take(model, "cpu").device == "cpu"


def test_a_failure_that_nobody_was_told_of_is_not_the_next_image_s(pool: NetworkPool, model: TrainedModel) -> None:
    checkpoint = model.folder / CHECKPOINT
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(b"")
    pool.prepare(model, "cpu")
    assert eventually(lambda: not pool.holds(model, "cpu"))
    checkpoint.write_bytes(whole)
    pool.prepare(model, "cpu")
    assert pool.take(model, "cpu").device == "cpu"


def test_other_weights_in_the_same_place_have_a_plan_of_their_own(pool: NetworkPool, model: TrainedModel) -> None:
    first = pool.plan(model)
    plans = model.folder / "plans.json"
    plans.write_text(plans.read_text().replace("32,", "64,"))
    assert pool.plan(model) == first
    assert pool.plan(replace(model, sha256="1" * 64)).patch_zyx != first.patch_zyx


OPENED = """
import json, sys
from pathlib import Path
from benchmarks.detect import model, task
from inference import Pipeline
from openscans import networks
from openscans.types import InferenceOptions

image, cache = map(Path, sys.argv[1:])
opened = []

def count_opens(event, given):
    # An opener tells of itself too, without a mode.
    if event == "open" and given[1] is not None:
        opened.append(str(given[0]))

sys.addaudithook(count_opens)

def detect(pipeline):
    opened.clear()
    pipeline.detect(task(image, Path("phantom/weights"), fast=True), lambda *_: None)
    print(json.dumps([Path(name).name for name in opened]))

options = InferenceOptions(1, "float32", cache)
first, second = Pipeline(options), Pipeline(options)
for pipeline in (first, first, second):
    detect(pipeline)
"""


def test_what_is_known_of_the_weights_is_not_read_again(tmp_path: Path) -> None:
    body = spine.describe(3, spine.LEVELS[19:21])
    shape_zyx, affine_lps = grid.axial(body, (3.0, 3.0, 3.0))
    write_nifti(tmp_path / "ct.nii", drawing.render(body, shape_zyx, affine_lps)[0], affine_lps)
    arguments = [sys.executable, "-c", OPENED, str(tmp_path / "ct.nii"), str(tmp_path / "compiled")]
    said = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    first, warm, compiled = (Counter(json.loads(line)) for line in said.stdout.splitlines())
    # Two networks, each with a plan, labels and weights, each read once.
    assert [first[name] for name in ("plans.json", "dataset.json", "checkpoint_final.pth")] == [2, 2, 2]
    assert [warm[name] for name in ("plans.json", "dataset.json", "checkpoint_final.pth")] == [0, 0, 0]
    assert warm["ct.nii"] > 0
    assert [compiled[name] for name in ("plans.json", "dataset.json", "checkpoint_final.pth")] == [2, 2, 0]
