"""What the pipeline lets a network see of an image, with a network that only looks, and which networks it refuses.

And which image it sees: the one that was opened before, where it is still the same.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from inference import Pipeline
from openscans import volumes
from openscans.errors import DamagedWeights, InconsistentGeometry, InputNotFound, OutOfMemory
from openscans.networks import TORCH_ON_CPU, Network, Plan, UnfitDevice
from openscans.progress import Forecast
from openscans.segmentation import grids, memory_check, patch_count, resampling
from openscans.segmentation.vertebrae import vertebra_names
from openscans.system import memory
from openscans.types import Detection, DetectionTask, InferenceOptions, Precision, RunningNetwork, TrainedModel, Voxel
from openscans.volumes import opening
from phantom import layout, specs
from phantom.files import DicomStyle, write_dicom_series, write_nifti
from phantom.specs import NetworkSpec
from tests import bad_files, small_networks
from tests.bad_files import edit

COARSE_MM = np.diag([3.0, 3.0, 3.0, 1.0])
FRACTIONS = np.random.default_rng(0).uniform(1, 40, (6, 20, 20)).astype(np.float32)


ONLOOKS = RunningNetwork("onlooker", "none", "cpu", "bfloat16", "volumes", kernels={}, slow=False)


@dataclass
class Onlooker(Network):
    """Finds nothing, and keeps every patch that it was shown."""

    plan: Plan
    device: str = "cpu"
    patch_s: float = 0.1
    runs: RunningNetwork = ONLOOKS
    seen: list[NDArray[np.float32]] = field(default_factory=list)

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(patch.copy())
        return np.zeros((self.plan.architecture.heads, *patch.shape), np.float32)


@dataclass
class Onlookers:
    """Loads an `Onlooker` in the place of every network, which sees the image without normalisation."""

    loaded: list[Onlooker] = field(default_factory=list)

    def __call__(self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        self.loaded.append(Onlooker(replace(plan, normalise=lambda image: image)))
        return self.loaded[-1]


def model(results: Path, spec: NetworkSpec, spacing_zyx_mm: Sequence[float] | None = None) -> TrainedModel:
    """Plans of ``spec`` that name ``spacing_zyx_mm`` instead of its own, and no weights."""
    plans = layout.plans_of(spec)
    if spacing_zyx_mm is not None:
        plans["configurations"][layout.CONFIGURATION]["spacing"] = list(spacing_zyx_mm)
    folder = layout.training_folder(results, spec)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(layout.dataset_of(spec)))
    return TrainedModel(spec.folder, folder, spec.folder, spec.spacing_mm, step=0.5)


def detect(folder: Path, load: Onlookers, segmenter: TrainedModel, localiser: TrainedModel | None = None) -> None:
    """Run a detection in an image of `FRACTIONS`, 3 mm apart."""
    write_nifti(folder / "image.nii.gz", FRACTIONS, COARSE_MM)
    task = DetectionTask(folder / "image.nii.gz", "vertebrae", segmenter, localiser, device="cpu")
    options = InferenceOptions(1, "float32", folder / "compiled")
    Pipeline(options, load).detect(task, lambda *_: None)


WIDE_HU = np.full((32, 24, 300), -1000, np.int16)
WIDE_HU[:, 4:20, 130:170] = 45
"""A body, and a metre of air beside it."""


def test_the_localiser_looks_at_no_more_of_a_shifted_image_than_of_the_same_in_hu(tmp_path: Path) -> None:
    """Its air lies above all that counts as air in HU."""
    localiser, segmenter = (model(tmp_path, spec) for spec in (small_networks.CT, small_networks.VERTEBRAE))
    seen = []
    for number, voxels in enumerate((WIDE_HU, (WIDE_HU + 1024).astype(np.int16))):
        path = tmp_path / f"{number}.nii.gz"
        write_nifti(path, voxels, np.diag([6.0, 6.0, 6.0, 1.0]))
        load = Onlookers()
        task = DetectionTask(path, "vertebrae", segmenter, localiser, device="cpu")
        found = Pipeline(InferenceOptions(1, "float32", tmp_path / "compiled"), load).detect(task, ignore)
        assert ("values_not_hu" in {one.code for one in found.warnings}) == (number == 1)
        seen.append(len(load.loaded[0].seen))
    assert seen[0] == seen[1] < 10


def test_an_image_without_a_localiser_keeps_its_fractions_until_it_is_resampled(tmp_path: Path) -> None:
    load = Onlookers()
    detect(tmp_path, load, model(tmp_path, small_networks.MR))
    [patch] = load.loaded[0].seen
    grid = grids.model_grid(COARSE_MM, grids.whole_box(Voxel(20, 20, 6)), (1.5, 1.5, 1.5))
    expected = np.trunc(resampling.resample(FRACTIONS, grid, truncate=False))
    np.testing.assert_array_equal(patch[patch > 0], expected.ravel())


@pytest.mark.parametrize("spacing_zyx_mm", [(3.0, 3.0, 3.0), (1.5, 1.5, 1.498), (1.502, 1.5, 1.5)])
def test_a_network_for_another_spacing_than_its_task_s_is_refused_before_it_is_loaded(
    tmp_path: Path, spacing_zyx_mm: tuple[float, float, float]
) -> None:
    load = Onlookers()
    with pytest.raises(DamagedWeights) as refused:
        detect(tmp_path, load, model(tmp_path, small_networks.MR, spacing_zyx_mm))
    found = " × ".join(f"{spacing:g}" for spacing in spacing_zyx_mm)
    assert str(refused.value) == f"{small_networks.MR.folder} is for samples {found} mm apart, expected 1.5 mm."
    assert not load.loaded


def test_a_localiser_for_another_spacing_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    load = Onlookers()
    localiser = model(tmp_path, small_networks.CT, (3.0, 3.0, 3.0))
    with pytest.raises(DamagedWeights, match=r"Dataset298_.* 3 × 3 × 3 mm apart, expected 6 mm"):
        detect(tmp_path, load, model(tmp_path, small_networks.VERTEBRAE), localiser)
    assert not load.loaded


def test_a_spacing_that_was_rounded_where_it_was_written_is_the_task_s(tmp_path: Path) -> None:
    load = Onlookers()
    detect(tmp_path, load, model(tmp_path, small_networks.MR, (1.5, 1.4999, 1.5000001)))
    assert load.loaded[0].seen


def test_an_image_of_more_patches_than_a_body_takes_is_refused_before_it_is_read_or_anything_loaded(
    tmp_path: Path,
) -> None:
    load, stages = Onlookers(), []
    write_nifti(tmp_path / "large.nii.gz", np.zeros((100, 56, 56), np.int16), np.diag([18.0, 18.0, 24.0, 1.0]))
    segmenter = model(tmp_path, specs.SPECS[756])
    task = DetectionTask(tmp_path / "large.nii.gz", "vertebrae_mr", segmenter, None, device="cpu")
    options = InferenceOptions(1, "float32", tmp_path / "compiled")
    with pytest.raises(InconsistentGeometry, match="pieces of it"):
        Pipeline(options, load).detect(task, lambda stage, done, *_: stages.append((stage, done)))
    assert not load.loaded
    assert set(stages) <= {("reading", 0)}


@dataclass
class Finder(Network):
    """Finds a vertebra everywhere, and says what is done with it."""

    plan: Plan
    said: list[str]
    device: str = "cpu"
    runs: RunningNetwork = ONLOOKS
    patch_s: float = 0.1

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.said.append(f"{self.plan.dataset_name} computes")
        found = np.zeros((self.plan.architecture.heads, *patch.shape), np.float32)
        found[min(vertebra_names(self.plan.labels))] = 1
        return found

    def release(self) -> None:
        self.said.append(f"{self.plan.dataset_name} lets go")


HU = np.full((6, 20, 20), 40, np.int16)
HU[:, :2] = -1000
"""A body, and air beside it."""


@pytest.mark.parametrize(
    ("voxels", "assumed", "codes"),
    [
        (HU, True, []),
        (HU + 1024, True, ["modality_assumed"]),
        (HU + 1024, False, []),
        ((HU + 1024) / 2048, True, ["modality_assumed"]),
        (np.where(HU < 0, -47, HU), True, ["modality_assumed"]),
    ],
    ids=["HU", "stored from 0 on", "called a CT", "0 to 1", "MR that was resampled"],
)
def test_what_was_taken_for_a_ct_and_has_no_air_is_warned_of(
    tmp_path: Path, voxels: NDArray[Any], assumed: bool, codes: list[str]
) -> None:
    write_nifti(tmp_path / "image.nii.gz", voxels.astype(np.float32), COARSE_MM)
    segmenter = model(tmp_path, small_networks.MR)
    task = DetectionTask(
        tmp_path / "image.nii.gz", "vertebrae", segmenter, None, device="cpu", modality_assumed=assumed
    )
    found = Pipeline(InferenceOptions(1, "float32", tmp_path / "compiled"), Onlookers()).detect(task, ignore)
    assert [one.code for one in found.warnings if one.code == "modality_assumed"] == codes


@pytest.mark.parametrize(("precision", "ends"), [("bfloat16", "computes"), ("float32", "lets go")])
def test_the_localiser_lets_go_of_its_memory_before_the_segmenter_computes_and_that_in_float32_of_its_own(
    tmp_path: Path, precision: Precision, ends: str
) -> None:
    write_nifti(tmp_path / "image.nii.gz", FRACTIONS, COARSE_MM)
    localiser, segmenter = (model(tmp_path, spec) for spec in (small_networks.CT, small_networks.VERTEBRAE))
    task = DetectionTask(tmp_path / "image.nii.gz", "vertebrae", segmenter, localiser, device="cpu")
    said: list[str] = []

    def load(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        return Finder(plan, said, runs=replace(ONLOOKS, precision=precision))

    Pipeline(InferenceOptions(1, "float32", tmp_path / "compiled"), load).detect(task, ignore)
    first, second = localiser.dataset, segmenter.dataset
    assert [*dict.fromkeys(said)][:3] == [f"{first} computes", f"{first} lets go", f"{second} computes"]
    assert said[-1] == f"{second} {ends}"


def ignore(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None: ...


@dataclass
class Reading:
    """A pipeline, and how many slices each of its detections saw, each in a network that shows it."""

    folder: Path
    load: Onlookers = field(default_factory=Onlookers)

    def __post_init__(self) -> None:
        self.segmenter = model(self.folder / "results", small_networks.MR)
        self.pipeline = Pipeline(InferenceOptions(1, "float32", self.folder / "compiled"), self.load)

    def open(self, path: Path) -> str | None:
        return self.pipeline.open(path, None, ignore)

    def detect(self, path: Path) -> Detection:
        task = DetectionTask(path, "vertebrae_mr", self.segmenter, None, device="cpu")
        return self.pipeline.detect(task, ignore)

    def slices_seen(self, path: Path) -> int:
        return self.detect(path).image.size.z


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    return Reading(tmp_path)


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by the path of every image that is opened."""
    opened: list[Path] = []
    real = opening.open_image

    def noted(path: Path, **options: Any) -> volumes.Image:
        opened.append(path)
        return real(path, **options)

    monkeypatch.setattr(opening, "open_image", noted)
    return opened


def series(folder: Path, slices: int = 5) -> Path:
    write_dicom_series(folder, bad_files.some_voxels(slices=slices), bad_files.AFFINE)
    return folder


def test_a_detection_reads_the_image_whose_modality_was_asked_for(
    tmp_path: Path, reading: Reading, headers_read: list[Path]
) -> None:
    path = series(tmp_path / "a")
    assert reading.open(path) == "CT"
    assert reading.slices_seen(path) == 5
    assert headers_read == [path]


def test_an_opened_image_serves_one_detection(tmp_path: Path, reading: Reading, headers_read: list[Path]) -> None:
    path = series(tmp_path / "a")
    reading.open(path)
    reading.slices_seen(path)
    reading.slices_seen(path)
    assert headers_read == [path, path]


def test_another_image_than_the_opened_one_is_opened(tmp_path: Path, reading: Reading) -> None:
    reading.open(series(tmp_path / "a"))
    assert reading.slices_seen(series(tmp_path / "b", slices=7)) == 7


def test_an_image_that_cannot_be_opened_leaves_none_behind(tmp_path: Path, reading: Reading) -> None:
    path = series(tmp_path / "a")
    reading.open(path)
    with pytest.raises(InputNotFound):
        reading.open(tmp_path / "missing")
    shutil.rmtree(path)
    with pytest.raises(InputNotFound):
        reading.slices_seen(path)


def a_slice_comes(folder: Path) -> None:
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    shutil.rmtree(folder)
    write_dicom_series(folder, bad_files.some_voxels(slices=6), bad_files.AFFINE, DicomStyle(series_uid=uid))


def a_slice_goes(folder: Path) -> None:
    max(folder.iterdir()).unlink()


def a_file_is_written_anew(folder: Path) -> None:
    """It belongs to another series now."""
    edit(max(folder.iterdir()), SeriesInstanceUID="1.2.3")


@pytest.mark.parametrize(("change", "slices"), [(a_slice_comes, 6), (a_slice_goes, 4), (a_file_is_written_anew, 4)])
def test_an_opened_image_whose_files_changed_is_opened_anew(
    tmp_path: Path, reading: Reading, change: Callable[[Path], None], slices: int
) -> None:
    path = series(tmp_path / "a")
    reading.open(path)
    change(path)
    assert reading.slices_seen(path) == slices


def test_an_opened_nifti_file_that_was_written_anew_is_opened_anew(tmp_path: Path, reading: Reading) -> None:
    path = tmp_path / "image.nii"
    write_nifti(path, bad_files.some_voxels(slices=5), bad_files.AFFINE)
    assert reading.open(path) is None
    write_nifti(path, bad_files.some_voxels(slices=6), bad_files.AFFINE)
    assert reading.slices_seen(path) == 6


def test_a_detection_tells_where_the_uids_that_it_names_stand(tmp_path: Path, reading: Reading) -> None:
    found = reading.detect(series(tmp_path / "a"))
    image = found.image
    shared = {image.series_instance_uid, image.study_instance_uid, image.frame_of_reference_uid}
    assert found.uid_locations.keys() == shared
    for uid, place in found.uid_locations.items():
        assert Path(place.file).read_bytes()[place.start :][: place.length].decode() == uid


def test_networks_that_were_loaded_early_are_those_of_the_detection(tmp_path: Path, reading: Reading) -> None:
    reading.pipeline.load((reading.segmenter,), "cpu")
    [early] = reading.load.loaded
    reading.detect(series(tmp_path / "a"))
    assert reading.load.loaded == [early]
    assert early.seen


def test_networks_are_loaded_early_only_where_there_is_room(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(OutOfMemory, match="Loading the networks early needs"):
        reading.pipeline.load((reading.segmenter,), "cpu")
    assert not reading.load.loaded


def test_a_network_that_was_loaded_and_never_ran_still_needs_room_for_a_patch(
    tmp_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = series(tmp_path / "a")
    reading.pipeline.load((reading.segmenter,), "cpu")
    # Enough for the image, its samples and their sums, and less than the logits of one patch.
    free = partial(monkeypatch.setattr, memory, "available_bytes")
    free(lambda: 5_000_000)
    with pytest.raises(OutOfMemory, match="The detection needs"):
        reading.detect(path)
    free(lambda: 50_000_000)
    reading.detect(path)
    free(lambda: 5_000_000)
    reading.detect(path)


def test_where_the_wished_device_is_unfit_networks_are_loaded_early_for_the_cpu(tmp_path: Path) -> None:
    asked: list[str] = []

    def load(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        asked.append(device)
        if device != "cpu":
            raise UnfitDevice
        return Onlooker(plan)

    segmenter = model(tmp_path, small_networks.MR)
    pipeline = Pipeline(InferenceOptions(1, "float32", tmp_path / "compiled"), load)
    pipeline.load((segmenter,), TORCH_ON_CPU)
    pipeline.load((segmenter,), TORCH_ON_CPU)
    assert asked == [TORCH_ON_CPU, "cpu"]


def placed(folder: Path, slices: int, spacing_mm: float, *, damaged: bool) -> None:
    """A series of 40 × 40 pixels in ``folder`` beside others."""
    affine = np.diag([spacing_mm, spacing_mm, 3.0, 1.0])
    style = DicomStyle(series_uid=generate_uid(), suffix=f".{slices}")
    voxels = np.random.default_rng(0).integers(-1000, 1000, (slices, 40, 40)).astype(np.int16)
    *_, last = write_dicom_series(folder, voxels, affine, style)
    if damaged:
        last.write_bytes(last.read_bytes()[:-100])


def test_a_series_that_takes_a_damaged_one_s_place_is_checked_itself_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has fewer slices, each of 400 times the area."""
    placed(tmp_path / "images", 12, 1.0, damaged=True)
    placed(tmp_path / "images", 11, 20.0, damaged=False)
    localiser, segmenter = (model(tmp_path, spec) for spec in (small_networks.CT, small_networks.VERTEBRAE))
    task = DetectionTask(tmp_path / "images", "vertebrae", segmenter, localiser, device="cpu")
    checked: list[int] = []
    real = memory_check.check_detection

    def check(extent: volumes.Extent, *runs: Any) -> None:
        checked.append(extent.shape_zyx[0])
        real(extent, *runs)

    monkeypatch.setattr(memory_check, "check_detection", check)
    forecasts: list[float | None] = []

    def report(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        if stage == "reading" and forecast is not None and total == 11:
            forecasts.append(forecast.later_s)

    load = Onlookers()
    pipeline = Pipeline(InferenceOptions(1, "float32", tmp_path / "compiled"), load)
    pipeline.load((localiser, segmenter), "cpu")
    found = pipeline.detect(task, report)
    assert [one.code for one in found.warnings if one.code == "series_passed_over"]
    assert checked == [12, 11]
    # A tenth of a second for each patch: of the localiser, and of the segmenter around the spine.
    plans = [network.plan for network in load.loaded]
    extent = volumes.Extent((11, 40, 40), np.diag([20.0, 20.0, 3.0, 1.0]))
    patches = patch_count.count_patches(plans[0], extent, step=localiser.step)
    patches += patch_count.count_spine_patches(plans[1], extent, step=segmenter.step)
    assert forecasts[-1] == pytest.approx(0.1 * patches)
