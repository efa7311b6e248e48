"""Where the localiser finds no spine, or too little of it, a finer network looks again, once; and what is said of that.

With networks that see a voxel by its value alone, so that each can be made blind to a part of a spine.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.detect import model as trained
from inference import Pipeline
from openscans import networks
from openscans.errors import DamagedWeights
from openscans.networks import Network, Plan
from openscans.progress import Forecast
from openscans.segmentation import grids, labelling, second_look
from openscans.segmentation.roi import SpineRoi, join_rois
from openscans.segmentation.second_look import Cut, Doubt, Face
from openscans.segmentation.vertebrae import LabelMap
from openscans.system import memory
from openscans.types import (
    Bounds,
    Detection,
    DetectionTask,
    InferenceOptions,
    RunningNetwork,
    TrainedModel,
    Voxel,
    WarningCode,
)
from openscans.volumes import Volume
from phantom import drawing, grid, layout, spine
from phantom.demo import WEIGHTS
from phantom.files import write_nifti
from phantom.specs import NetworkSpec
from tests import small_networks
from tests.curved_spines import bent

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])

LOWER_HU, UPPER_HU = 400, 900
"""Two vertebrae, one above the other."""

MIDDLE = 64
"""The first slice of the upper one."""


def scan(spine_hu: NDArray[np.float64] | None = None) -> NDArray[np.int16]:
    """A column of bone in a body, with air before it; of ``spine_hu``, slice by slice, else of two vertebrae."""
    if spine_hu is None:
        spine_hu = np.where(np.arange(8, 120) < MIDDLE, LOWER_HU, UPPER_HU).astype(float)
    voxels = np.full((128, 40, 40), 40.0)
    voxels[:, :6] = -1000
    voxels[8:120, 15:25, 15:25] = spine_hu[:, np.newaxis, np.newaxis]
    voxels += np.random.default_rng(0).normal(0, 10, voxels.shape)
    return np.rint(voxels).astype(np.int16)


@dataclass
class Seeing(Network):
    """Calls T12 what is from ``upper_hu`` on, and L1 what is from ``lower_hu`` on; counts the patches it was shown."""

    plan: Plan
    lower_hu: float
    upper_hu: float
    device: str = "cpu"
    patch_s: float = 0.1
    runs: RunningNetwork = field(
        default_factory=lambda: RunningNetwork("seeing", "none", "cpu", "bfloat16", "volumes", kernels={}, slow=False)
    )
    seen: int = 0

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen += 1
        numbers = {name: number for number, name in self.plan.labels.items()}
        logits = np.zeros((self.plan.architecture.heads, *patch.shape), np.float32)
        logits[0] = 1
        logits[numbers["vertebrae_L1"]] = np.where(patch >= self.lower_hu, 2, 0)
        logits[numbers["vertebrae_T12"]] = np.where(patch >= self.upper_hu, 3, 0)
        return logits


BLIND = float("inf")
ALL = (200.0, 700.0)
UPPER_ONLY = (700.0, 700.0)
NOTHING = (BLIND, BLIND)


def model(results: Path, spec: NetworkSpec) -> TrainedModel:
    """Plans of ``spec``, and no weights."""
    folder = layout.training_folder(results, spec)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(layout.plans_of(spec)))
    (folder / "dataset.json").write_text(json.dumps(layout.dataset_of(spec)))
    return TrainedModel(spec.folder, folder, spec.folder, spec.spacing_mm, step=0.8)


@dataclass
class Scene:
    """An image, a task of three networks, and what each of them sees."""

    folder: Path
    sees: dict[str, tuple[float, float]] = field(default_factory=dict)
    ran: dict[str, Seeing] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        specs = small_networks.CT, small_networks.FAST, small_networks.VERTEBRAE
        self.localiser, self.robust, self.segmenter = (model(self.folder, spec) for spec in specs)
        self.task = DetectionTask(
            self.folder / "image.nii.gz", "vertebrae", self.segmenter, self.localiser, device="cpu", robust=self.robust
        )
        write_nifti(self.task.path, scan(), AFFINE)
        self.pipeline = Pipeline(InferenceOptions(1, "float32", self.folder / "compiled"), self.load)

    def load(self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        plan = replace(plan, normalise=lambda image: image)
        self.ran[model.dataset] = Seeing(plan, *self.sees.get(model.dataset, ALL))
        return self.ran[model.dataset]

    def blind(self, model: TrainedModel, sees: tuple[float, float] = NOTHING) -> None:
        self.sees[model.dataset] = sees

    def detect(self, **changes: Any) -> Detection:
        def report(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
            if self.stages[-1:] != [stage]:
                self.stages.append(stage)

        return self.pipeline.detect(replace(self.task, **changes), report)

    def patches(self, model: TrainedModel) -> int:
        return self.ran[model.dataset].seen if model.dataset in self.ran else 0


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def doubts(found: Detection) -> list[tuple[str, str]]:
    told = {WarningCode.LOCALISED_AGAIN, WarningCode.SECOND_LOOK_MISSING}
    return [(one.code, one.message) for one in found.warnings if one.code in told]


def labels(found: Detection) -> list[str]:
    return [vertebra.label for vertebra in found.vertebrae]


def test_where_the_localiser_finds_the_whole_spine_nobody_looks_again(scene: Scene) -> None:
    found = scene.detect()
    assert (labels(found), doubts(found)) == (["T12", "L1"], [])
    assert scene.robust.dataset not in scene.ran
    assert found.task.networks == (scene.segmenter, scene.localiser)
    assert scene.stages == ["reading", "localising", "segmenting", "measuring"]


def test_what_the_localiser_does_not_find_is_found_by_the_finer_network(scene: Scene) -> None:
    expected = scene.detect()
    scene.pipeline = Pipeline(InferenceOptions(1, "float32", scene.folder / "compiled"), scene.load)
    scene.blind(scene.localiser)
    scene.stages.clear()
    found = scene.detect()
    assert labels(found) == ["T12", "L1"]
    for one, other in zip(found.vertebrae, expected.vertebrae, strict=True):
        assert np.allclose(astuple(one.center), astuple(other.center), atol=1.0)
    assert doubts(found) == [
        ("localised_again", "The network at 6 mm found no spine. That at 3 mm looked again and found it.")
    ]
    assert [network.dataset for network in found.task.networks] == [
        scene.segmenter.dataset,
        scene.localiser.dataset,
        scene.robust.dataset,
    ]
    assert len(found.networks) == 3
    assert scene.stages == ["reading", "localising", "segmenting", "measuring"]


def test_what_neither_finds_is_not_found_and_said_so(scene: Scene) -> None:
    scene.blind(scene.localiser)
    scene.blind(scene.robust)
    found = scene.detect()
    assert [one.code for one in found.warnings] == ["localised_again", "no_vertebrae"]
    assert doubts(found)[0][1].endswith("That at 3 mm looked again and found none either.")
    assert scene.patches(scene.segmenter) == 0


def test_a_vertebra_that_leaves_the_crop_is_labelled_in_a_larger_one(scene: Scene) -> None:
    expected = scene.detect()
    scene.pipeline = Pipeline(InferenceOptions(1, "float32", scene.folder / "compiled"), scene.load)
    scene.blind(scene.localiser, UPPER_ONLY)
    scene.stages.clear()
    found = scene.detect()
    assert [one.volume_ml for one in found.vertebrae] == pytest.approx(
        [one.volume_ml for one in expected.vertebrae], rel=0.02
    )
    assert doubts(found) == [
        (
            "localised_again",
            "L1 reaches out of the part of the image in which the network at 6 mm found the spine. That at 3 mm looked"
            " again and found more of it, which was labelled.",
        )
    ]
    assert scene.stages == ["reading", "localising", "segmenting", "localising", "segmenting", "measuring"]


def test_where_the_finer_network_finds_no_more_nothing_is_labelled_again(scene: Scene) -> None:
    scene.blind(scene.localiser, UPPER_ONLY)
    scene.blind(scene.robust, UPPER_ONLY)
    found = scene.detect()
    patches = scene.patches(scene.segmenter)
    assert doubts(found)[0][1].endswith("found no more of it there: it may be cut.")
    assert labels(found) == ["T12", "L1"]
    scene.pipeline = Pipeline(InferenceOptions(1, "float32", scene.folder / "compiled"), scene.load)
    scene.detect(robust=None)
    assert scene.patches(scene.segmenter) == patches


def test_the_finer_network_looks_once_even_where_its_box_is_too_small(scene: Scene) -> None:
    write_nifti(scene.task.path, scan(np.linspace(300.0, 900.0, 112)), AFFINE)
    scene.blind(scene.localiser, (800.0, BLIND))
    scene.blind(scene.robust, (600.0, BLIND))
    found = scene.detect()
    [(code, message)] = doubts(found)
    assert code == "localised_again"
    assert message.endswith("looked again and found more of it, which was labelled. Cut even so: L1.")
    assert scene.stages.count("localising") == 2


def test_fast_mode_labels_the_whole_image_where_the_localiser_finds_nothing(scene: Scene) -> None:
    scene.blind(scene.localiser)
    found = scene.detect(segmenter=scene.robust, key="total_body")
    assert labels(found) == ["T12", "L1"]
    assert doubts(found) == [
        ("localised_again", "The network at 6 mm found no spine. That at 3 mm labelled the whole image.")
    ]
    assert found.task.networks == (scene.robust, scene.localiser)
    assert scene.segmenter.dataset not in scene.ran


def test_fast_mode_labels_once_where_a_vertebra_leaves_the_crop(scene: Scene) -> None:
    scene.blind(scene.localiser, UPPER_ONLY)
    found = scene.detect(segmenter=scene.robust, key="total_body")
    assert doubts(found) == []
    assert scene.stages.count("segmenting") == 1


def test_an_image_that_no_localiser_was_for_is_looked_at_once(scene: Scene) -> None:
    found = scene.detect(localiser=None, robust=None)
    assert doubts(found) == []


@pytest.mark.parametrize("sees", [NOTHING, UPPER_ONLY])
def test_without_the_finer_network_what_it_would_do_is_said(scene: Scene, sees: tuple[float, float]) -> None:
    scene.blind(scene.localiser, sees)
    found = scene.detect(robust=None, robust_lacks="It is in the post.")
    [(code, message)] = doubts(found)
    assert code == "second_look_missing"
    assert message.endswith("A finer network, which would look again, did not: It is in the post.")
    assert labels(found) == ([] if sees == NOTHING else ["T12", "L1"])


@pytest.mark.parametrize("sees", [NOTHING, UPPER_ONLY])
def test_where_memory_lacks_for_the_finer_network_what_was_found_is_told(
    scene: Scene, sees: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.blind(scene.localiser, sees)
    monkeypatch.setattr(memory, "available_bytes", lambda: 50_000_000)
    needs = second_look_needs(monkeypatch, 60_000_000)
    found = scene.detect()
    assert needs
    [(code, message)] = doubts(found)
    assert code == "second_look_missing"
    assert "Looking again needs" in message
    assert scene.robust.dataset not in scene.ran


def test_where_memory_lacks_for_the_finer_network_s_arrays_what_was_found_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def localise(volume: Volume, network: Network, **how: Any) -> SpineRoi | None:
        if network.plan.dataset_name == scene.robust.dataset:
            raise MemoryError
        return real(volume, network, **how)

    real = labelling.localise
    monkeypatch.setattr(labelling, "localise", localise)
    scene.blind(scene.localiser, UPPER_ONLY)
    found = scene.detect()
    assert labels(found) == ["T12", "L1"]
    [(code, message)] = doubts(found)
    assert code == "second_look_missing"
    assert message.endswith("did not: There is not enough memory.")


def test_a_network_that_looked_again_keeps_no_memory_though_it_labelled_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(memory, "check_free", lambda need_bytes, what: needed.append(need_bytes))
    scene.detect(segmenter=scene.robust, key="total_body")
    scene.pipeline.load((scene.robust,), "cpu")
    assert needed[-1] == 0
    localiser = scene.ran[scene.localiser.dataset]
    localiser.lower_hu = localiser.upper_hu = BLIND
    scene.detect()
    scene.pipeline.load((scene.robust,), "cpu")
    assert needed[-1] > 0


def second_look_needs(monkeypatch: pytest.MonkeyPatch, bytes_: int) -> list[str]:
    """Says that looking again takes so much; grows by a word each time that is asked."""
    asked: list[str] = []
    real = memory.check_free

    def check_free(need_bytes: int, what: str) -> None:
        if what == "Looking again":
            asked.append(what)
            need_bytes = bytes_
        real(need_bytes, what)

    monkeypatch.setattr(memory, "check_free", check_free)
    return asked


def test_a_finer_network_that_is_damaged_leaves_what_was_found(scene: Scene) -> None:
    scene.blind(scene.localiser, UPPER_ONLY)
    (scene.robust.folder / "plans.json").write_text("{")
    found = scene.detect()
    assert labels(found) == ["T12", "L1"]
    assert [code for code, _ in doubts(found)] == ["second_look_missing"]


def test_what_happens_in_the_second_look_is_forecast(scene: Scene) -> None:
    """Patches of the finer network, and about those that are labelled after it."""
    scene.blind(scene.localiser)
    told: list[tuple[str, int, Forecast | None]] = []

    def report(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        told.append((stage, total - done, forecast))

    scene.pipeline.detect(scene.task, report)
    [later] = {forecast.later_s for stage, _, forecast in told if stage == "localising" and forecast is not None}
    first = next(index for index, (stage, *_) in enumerate(told) if stage == "segmenting")
    assert told[first - 1][0] == "localising"
    assert later is not None
    assert later > 0


NAMES = {1: "L2", 2: "L1"}


def cropped(labels: NDArray[np.uint8], low_xyz: Sequence[int], size: Voxel) -> Cut | None:
    """What is cut of a crop from ``low_xyz`` on, in an image of ``size`` with samples of 2 mm at each voxel."""
    z, y, x = (
        grids.Axis(2 - number, low, low + count - 1, count)
        for number, (low, count) in enumerate(zip(low_xyz[::-1], labels.shape, strict=True))
    )
    found = LabelMap(labels, np.zeros(labels.shape, np.float16), grids.ModelGrid(x, y, z), NAMES)
    return second_look.find_cut(found, np.diag([2.0, 2.0, 2.0, 1.0]), size)


def block(z: slice, y: slice, x: slice, number: int = 1) -> NDArray[np.uint8]:
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[z, y, x] = number
    return labels


INNER = slice(3, 7)
LARGE = Voxel(100, 100, 100)


@pytest.mark.parametrize(
    ("place", "face"),
    [
        ((slice(0, 5), INNER, INNER), Face(2, last=False)),
        ((slice(5, 10), INNER, INNER), Face(2, last=True)),
        ((INNER, slice(0, 5), INNER), Face(1, last=False)),
        ((INNER, slice(5, 12), INNER), Face(1, last=True)),
        ((INNER, INNER, slice(0, 5)), Face(0, last=False)),
        ((INNER, INNER, slice(5, 14)), Face(0, last=True)),
    ],
)
def test_a_vertebra_on_a_face_of_the_crop_is_cut(place: tuple[slice, slice, slice], face: Face) -> None:
    assert cropped(block(*place), (20, 20, 20), LARGE) == Cut(("L2",), (face,))


@pytest.mark.parametrize("low_xyz", [(0, 0, 0), (86, 88, 90)])
def test_a_vertebra_on_a_face_of_the_image_is_not_cut_by_the_crop(low_xyz: tuple[int, int, int]) -> None:
    at_the_start = low_xyz == (0, 0, 0)
    edge = slice(0, 5) if at_the_start else slice(5, 10)
    assert cropped(block(edge, INNER, INNER), low_xyz, LARGE) is None


def test_a_speck_on_a_face_and_a_label_that_is_no_vertebra_are_not_cut() -> None:
    assert cropped(block(slice(0, 2), slice(3, 5), slice(3, 6)), (20, 20, 20), LARGE) is None
    assert cropped(block(slice(0, 5), INNER, INNER, number=9), (20, 20, 20), LARGE) is None


def test_vertebrae_that_are_cut_run_from_head_to_foot() -> None:
    labels = block(slice(0, 5), INNER, INNER) + block(slice(6, 10), INNER, INNER, number=2)
    cut = cropped(labels, (20, 20, 20), LARGE)
    assert cut is not None
    assert cut.labels == ("L1", "L2")
    assert str(Doubt(6.0, cut)).startswith("L1 and L2 reach out of")


def test_a_face_is_told_in_the_volume_s_axes_where_the_network_s_run_against_them() -> None:
    turned = grids.ModelGrid(grids.Axis(0, 39, 30, 10), grids.Axis(1, 30, 39, 10), grids.Axis(2, 30, 39, 10))
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[INNER, INNER, :5] = 1
    found = LabelMap(labels, np.zeros(labels.shape, np.float16), turned, NAMES)
    assert second_look.find_cut(found, np.diag([2.0, 2.0, 2.0, 1.0]), LARGE) == Cut(("L2",), (Face(0, last=True),))


BOX = Bounds(Voxel(20, 20, 20), Voxel(40, 40, 40))


@pytest.mark.parametrize(
    ("box", "wider"),
    [
        (Bounds(Voxel(20, 20, 18), Voxel(40, 40, 40)), True),
        (Bounds(Voxel(20, 20, 19), Voxel(40, 40, 40)), False),
        (Bounds(Voxel(10, 10, 20), Voxel(50, 50, 50)), False),
        (Bounds(Voxel(20, 20, 30), Voxel(40, 40, 40)), False),
    ],
)
def test_a_box_is_wider_that_reaches_beyond_the_face_that_cuts(box: Bounds, wider: bool) -> None:
    cut = Cut(("L5",), (Face(2, last=False),))
    assert second_look.is_wider(box, BOX, cut, np.diag([2.0, 2.0, 2.0, 1.0])) is wider


def test_two_ways_along_the_spine_are_joined_on_the_grid_of_the_first() -> None:
    size = Voxel(40, 40, 40)
    fine, coarse = (grids.model_grid(AFFINE, grids.whole_box(size), (mm,) * 3) for mm in (3.0, 6.0))
    upper, lower = np.zeros(fine.shape_zyx, np.bool_), np.zeros(coarse.shape_zyx, np.bool_)
    upper[30:35, 10:20, 10:20] = True
    lower[2:5, 5:10, 5:10] = True
    one = SpineRoi(Bounds(Voxel(5, 5, 25), Voxel(25, 25, 39)), upper, fine)
    other = SpineRoi(Bounds(Voxel(4, 8, 0), Voxel(26, 22, 15)), lower, coarse)
    joined = join_rois(one, other)
    assert joined.box == Bounds(Voxel(4, 5, 0), Voxel(26, 25, 39))
    assert joined.mask[30:35, 10:20, 10:20].all()
    assert joined.mask[4:9, 11:18, 11:18].all()
    assert not joined.mask[15:25].any()


def test_a_damaged_localiser_is_no_reason_to_look_again(scene: Scene) -> None:
    (scene.localiser.folder / "plans.json").write_text("{")
    with pytest.raises(DamagedWeights):
        scene.detect()


@pytest.mark.parametrize("bend", [{}, {"to_side_mm": 30.0}, {"to_back_mm": 30.0}], ids=str)
def test_no_spine_that_the_trained_networks_find_is_looked_at_again(tmp_path: Path, bend: dict[str, float]) -> None:
    loaded: list[str] = []

    def load(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        loaded.append(model.dataset)
        return networks.load(model, plan, device=device, options=options)

    body = bent(7, spine.LEVELS[-4:], **bend)
    shape_zyx, affine = grid.axial(body, (2.0, 2.0, 2.0))
    write_nifti(tmp_path / "image.nii.gz", drawing.render(body, shape_zyx, affine, seed=1)[0], affine)
    localiser, robust, segmenter = (trained(WEIGHTS, number) for number in (298, 297, 292))
    task = DetectionTask(tmp_path / "image.nii.gz", "vertebrae", segmenter, localiser, device="cpu", robust=robust)
    found = Pipeline(InferenceOptions(None, "float32", tmp_path / "compiled"), load).detect(task, lambda *_: None)
    assert set(spine.LEVELS[-4:]) <= set(labels(found))
    assert doubts(found) == []
    assert robust.dataset not in loaded
