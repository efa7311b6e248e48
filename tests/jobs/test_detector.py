"""What a detection asks of worker and weights, with stand-ins for both that write down what they are asked."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from openscans.errors import (
    Cancelled,
    DamagedWeights,
    ModelError,
    ModelMissing,
    OutOfMemory,
    RefusedWeights,
    UnknownTask,
    UnsupportedModality,
    WorkerCrashed,
)
from openscans.jobs.detector import DetectionRequest, Detector
from openscans.jobs.fingerprint import Fingerprint, Listing
from openscans.jobs.image_files import ImageAccess
from openscans.jobs.job import Look
from openscans.jobs.result_cache import ResultCache
from openscans.jobs.worker_messages import Located, LookRequest
from openscans.progress import Forecast, Report, StageReport
from openscans.system.private_folders import PrivateFolders
from openscans.types import Detection, DetectionTask, ResultWarning, TrainedModel, UidLocation, WarningCode
from openscans.weights.catalogue import TASKS
from tests import pipelines

IMAGE = "/images/fine"

ANYWHERE = ImageAccess(PrivateFolders(Path(os.devnull)))
"""For images that are no zips."""


@dataclass
class Diary:
    """A worker and a store of weights in one, as both must be asked in the right order."""

    found: str | None = "CT"
    missing: bool = False
    further: tuple[int, ...] = ()
    unusable: dict[int, ModelError] = field(default_factory=dict)
    notices: dict[int, ResultWarning] = field(default_factory=dict)
    refusals: list[Exception] = field(default_factory=list)
    forecasts: tuple[Forecast, ...] = ()
    asked: list[str] = field(default_factory=list)

    def look(self, request: LookRequest, report: StageReport) -> Located:
        return Located(Path(request.text), None)

    def is_unchanged(self, fingerprint: Fingerprint, report: StageReport) -> bool:
        return False

    def read_uids(self, locations: tuple[UidLocation, ...], report: StageReport) -> tuple[str, ...] | None:
        return None

    def is_zip(self, path: Path, report: StageReport) -> bool:
        return path.suffix == ".zip"

    def unpack(self, path: Path, folder: Path, report: StageReport) -> Path:
        self.asked.append(f"unpack {path.name}")
        return folder / "unpacked"

    def open(self, path: Path, series_uid: str | None, report: StageReport) -> str | None:
        self.asked.append(f"modality of {path.name}, {series_uid}")
        return self.found

    def detect(self, task: DetectionTask, report: StageReport) -> Detection:
        self.asked.append(f"detect {task.key}")
        for forecast in self.forecasts:
            report("segmenting", 0, 10, forecast)
        return pipelines.detection_of(task)

    def warm_up(self) -> None:
        self.asked.append("start")

    def load(self, models: tuple[TrainedModel, ...], device: str) -> None:
        self.asked.append(f"load {', '.join(model.dataset for model in models)} for {device}")
        if self.refusals:
            raise self.refusals.pop(0)

    @contextmanager
    def ready(self, key: str, report: Report, *, download: bool) -> Iterator[Mapping[int, TrainedModel]]:
        self.asked.append(f"fetch and keep {key}" if download else f"keep {key}")
        if download:
            report(1, 2)
        opened = (*(dataset.number for dataset in TASKS[key].opened), *self.further)
        yield {number: self.trained_model(number) for number in opened}
        self.asked.append("let go")

    def trained_model(self, dataset_id: int) -> TrainedModel:
        if self.missing:
            raise ModelMissing("The model is not there.")
        if dataset_id in self.unusable:
            raise self.unusable[dataset_id]
        warnings = (self.notices[dataset_id],) if dataset_id in self.notices else ()
        return TrainedModel(
            f"Dataset{dataset_id}", Path("/weights"), "0" * 64, spacing_mm=1.5, step=0.8, warnings=warnings
        )


def performed(diary: Diary, request: DetectionRequest, *, auto_download: bool = True) -> tuple[Detection, list[str]]:
    stages: list[str] = []
    detector = Detector(diary, diary, pipelines.NO_RESULTS, ANYWHERE, auto_download=auto_download, device="cpu")
    return detector.perform(Look(request), lambda stage, *_: stages.append(stage)), stages


def test_the_image_is_looked_at_before_anything_is_downloaded() -> None:
    diary = Diary()
    _, stages = performed(diary, DetectionRequest(IMAGE, series_uid="1.2"))
    assert diary.asked[:2] == ["modality of fine, 1.2", "fetch and keep vertebrae"]
    assert stages == ["reading", "downloading"]


def test_without_automatic_download_a_missing_model_is_an_error_and_nothing_is_fetched() -> None:
    diary = Diary(missing=True)
    with pytest.raises(ModelMissing):
        performed(diary, DetectionRequest(IMAGE), auto_download=False)
    assert diary.asked[1:] == ["keep vertebrae"]


def test_a_zip_is_unpacked_when_it_is_opened_and_again_before_it_is_read_where_it_changed(tmp_path: Path) -> None:
    diary = Diary()
    images = ImageAccess(PrivateFolders(tmp_path / "private"))
    detector = Detector(diary, diary, pipelines.NO_RESULTS, images, auto_download=True, device="cpu")
    found = detector.perform(Look(DetectionRequest("/images/scan.zip")), lambda *_: None)
    assert diary.asked == [
        "unpack scan.zip",
        "modality of unpacked, None",
        "fetch and keep vertebrae",
        "unpack scan.zip",
        "detect vertebrae",
        "let go",
    ]
    assert found.task.path == Path("/images/scan.zip")


def test_a_model_that_was_asked_for_needs_no_look_at_the_image() -> None:
    diary = Diary()
    performed(diary, DetectionRequest(IMAGE, model="vertebrae_mr"))
    assert diary.asked == ["fetch and keep vertebrae_mr", "detect vertebrae_mr", "let go"]


def test_the_models_are_kept_from_deletion_while_the_detection_runs() -> None:
    diary = Diary()
    performed(diary, DetectionRequest(IMAGE, model="vertebrae"))
    assert diary.asked[-3:] == ["fetch and keep vertebrae", "detect vertebrae", "let go"]


@pytest.mark.parametrize(("found", "task"), [("CT", "vertebrae"), (None, "vertebrae"), ("MR", "vertebrae_mr")])
def test_the_modality_chooses_the_model(found: str | None, task: str) -> None:
    assert performed(Diary(found), DetectionRequest(IMAGE))[0].task.key == task


@pytest.mark.parametrize(
    ("found", "model", "assumed"),
    [(None, None, True), ("CT", None, False), ("MR", None, False), (None, "vertebrae", False)],
)
def test_the_worker_is_told_where_nobody_said_that_it_is_a_ct(
    found: str | None, model: str | None, assumed: bool
) -> None:
    assert performed(Diary(found), DetectionRequest(IMAGE, model=model))[0].task.modality_assumed is assumed


def test_another_modality_is_refused_before_anything_is_downloaded() -> None:
    diary = Diary("PT")
    with pytest.raises(UnsupportedModality):
        performed(diary, DetectionRequest(IMAGE))
    assert len(diary.asked) == 1


def test_the_order_carries_the_recipe_of_the_task() -> None:
    task = performed(Diary(), DetectionRequest(IMAGE, device="cuda:1"))[0].task
    assert (task.segmenter.dataset, task.device) == ("Dataset292", "cuda:1")
    assert task.localiser is not None
    assert task.localiser.dataset == "Dataset298"


def test_fast_mode_is_the_3_mm_network_inside_the_box_of_the_6_mm_one() -> None:
    task = performed(Diary(), DetectionRequest(IMAGE, fast_mode=True))[0].task
    assert (task.key, task.segmenter.dataset, task.fast_mode) == (
        "total_body",
        "Dataset297",
        True,
    )
    assert task.localiser is not None


def test_the_order_carries_the_network_that_looks_again_where_that_is_here() -> None:
    task = performed(Diary(further=(297,)), DetectionRequest(IMAGE))[0].task
    assert task.robust is not None
    assert task.robust.dataset == "Dataset297"


@pytest.mark.parametrize("why", [ModelMissing("It is not there."), DamagedWeights("It is damaged.")])
def test_the_order_says_how_to_get_the_network_that_looks_again_where_that_is_not_here(why: ModelError) -> None:
    task = performed(Diary(unusable={297: why}), DetectionRequest(IMAGE))[0].task
    assert task.robust is None
    assert task.robust_lacks == (
        "Dataset297_TotalSegmentator_total_3mm_1559subj is not on disk as a whole."
        " Download it with POST /api/models/download/total_body."
    )


def test_the_order_says_why_the_network_that_looks_again_is_refused() -> None:
    refused = RefusedWeights("It is from a folder.", hint="Import its zip.")
    task = performed(Diary(unusable={297: refused}), DetectionRequest(IMAGE))[0].task
    assert task.robust_lacks == "It is from a folder. Import its zip."


def test_the_order_says_that_the_network_that_looks_again_is_just_being_changed() -> None:
    task = performed(Diary(), DetectionRequest(IMAGE))[0].task
    assert task.robust is None
    assert task.robust_lacks.endswith("is being downloaded or changed just now. Ask again when that is done.")


def test_of_a_network_that_may_look_again_nothing_is_told_before_it_does() -> None:
    notices = {number: ResultWarning(WarningCode.UNEXPECTED_DIGEST, str(number)) for number in (292, 297)}
    diary = Diary(further=(297,), notices=notices, forecasts=(Forecast(unit_s=1.0, later_s=0.0),))
    told: list[ResultWarning] = []

    def report(_stage: str, _done: int, _total: int, forecast: Forecast | None = None, /) -> None:
        told.extend(() if forecast is None else forecast.warnings)

    detector = Detector(diary, diary, pipelines.NO_RESULTS, ANYWHERE, auto_download=True, device="cpu")
    detector.perform(Look(DetectionRequest(IMAGE)), report)
    assert told == [notices[292]]


def test_in_fast_mode_the_network_that_labels_is_the_one_that_looks_again() -> None:
    task = performed(Diary(), DetectionRequest(IMAGE, fast_mode=True))[0].task
    assert task.robust == task.segmenter


def test_for_mr_nobody_looks_again() -> None:
    assert performed(Diary("MR"), DetectionRequest(IMAGE))[0].task.robust is None


def test_fast_mode_for_mr_runs_the_full_network_and_says_so() -> None:
    found = performed(Diary("MR"), DetectionRequest(IMAGE, fast_mode=True))[0]
    assert found.task.segmenter.dataset == "Dataset756"
    assert found.task.localiser is None
    assert [(warning.code, warning.message) for warning in found.warnings] == [
        ("fast_mode_unavailable", "There is no fast model for MR images; the full one was used.")
    ]


def test_a_request_for_an_unknown_model_cannot_be_made() -> None:
    with pytest.raises(UnknownTask) as refused:
        DetectionRequest(IMAGE, model="lungs")
    assert refused.value.hint.startswith("The tasks are vertebrae, total_body")


VERTEBRAE = ["keep vertebrae", "load Dataset298, Dataset292 for cpu"]
TOTAL_BODY = ["keep total_body", "load Dataset298, Dataset297 for cpu"]
MR = ["keep vertebrae_mr", "load Dataset756 for cpu"]


def warmed_up(diary: Diary) -> list[str]:
    Detector(diary, diary, pipelines.NO_RESULTS, ANYWHERE, auto_download=True, device="cpu").warm_up()
    return diary.asked


def test_networks_are_loaded_early_as_they_are_needed_and_kept_from_deletion_meanwhile() -> None:
    expected = ["start", *VERTEBRAE, "let go", *TOTAL_BODY, "let go", *MR, "let go"]
    assert warmed_up(Diary()) == expected


def test_models_that_are_not_on_disk_are_passed_over_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert warmed_up(Diary(missing=True)) == ["start", VERTEBRAE[0], TOTAL_BODY[0], MR[0]]
    assert caplog.messages == []


@pytest.mark.parametrize("refusal", [OutOfMemory("Too little."), DamagedWeights("Broken."), WorkerCrashed("Gone.")])
def test_what_cannot_be_loaded_early_is_a_line_in_the_log_and_the_rest_is_loaded(
    refusal: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    asked = warmed_up(Diary(refusals=[refusal]))
    assert [line for line in asked if line.startswith("load")] == [VERTEBRAE[1], TOTAL_BODY[1], MR[1]]
    assert caplog.messages == [f"vertebrae is not loaded: {refusal}"]


def test_a_server_that_ends_loads_no_more() -> None:
    assert warmed_up(Diary(refusals=[Cancelled()])) == ["start", *VERTEBRAE]


IN_TEN_MINUTES = Forecast(unit_s=60.0, later_s=0.0)


@pytest.mark.parametrize(
    ("request_", "modality", "advice"),
    [
        (DetectionRequest(IMAGE), "CT", "; fast_mode takes less."),
        (DetectionRequest(IMAGE, fast_mode=True), "CT", "."),
        (DetectionRequest(IMAGE, model="total_body"), "CT", "."),
        (DetectionRequest(IMAGE), "MR", "."),
    ],
)
def test_a_detection_of_minutes_is_warned_of_once_with_what_would_help(
    request_: DetectionRequest, modality: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    diary = Diary(modality, forecasts=(IN_TEN_MINUTES, replace(IN_TEN_MINUTES, unit_s=90.0)))
    heard: list[Forecast | None] = []
    detector = Detector(diary, diary, pipelines.NO_RESULTS, ANYWHERE, auto_download=True, device="cpu")
    with caplog.at_level("WARNING", "openscans"):
        found = detector.perform(Look(request_), lambda *told: heard.append(told[3] if len(told) > 3 else None))
    message = f"A detection in this image takes about 10 minutes on this machine{advice}"
    warning = ResultWarning(WarningCode.SLOW_DETECTION, message)
    assert found.warnings == (warning,)
    assert [told.warnings for told in heard if told is not None] == [(warning,), (warning,)]
    assert [record.getMessage() for record in caplog.records] == [message]


@pytest.mark.parametrize("forecast", [Forecast(11.0, 5.0), Forecast(60.0, None), Forecast()], ids=str)
def test_nobody_is_warned_of_a_detection_of_two_minutes_or_of_one_that_nobody_can_foresee(forecast: Forecast) -> None:
    assert performed(Diary(forecasts=(forecast,)), DetectionRequest(IMAGE))[0].warnings == ()


class UnchangedDiary(Diary):
    def is_unchanged(self, fingerprint: Fingerprint, report: StageReport) -> bool:
        return True


class Shelf(ResultCache):
    """Keeps what it is given where a test can see it."""

    def __init__(self) -> None:
        super().__init__(Path(), settings=(), most=0)
        self.kept: list[Detection] = []

    def put(self, key: str, detection: Detection, image: Fingerprint) -> None:
        self.kept.append(detection)


def test_an_answer_that_took_minutes_is_kept_without_the_warning_of_them() -> None:
    diary, shelf = UnchangedDiary(forecasts=(IN_TEN_MINUTES,)), Shelf()
    image = Fingerprint("0" * 64, (), Listing(Path("/images"), deep=False, stats=()))
    detector = Detector(diary, diary, shelf, ANYWHERE, auto_download=True, device="cpu")
    found = detector.perform(Look(DetectionRequest(IMAGE), image), lambda *_: None)
    assert [warning.code for warning in found.warnings] == ["slow_detection"]
    assert [kept.warnings for kept in shelf.kept] == [()]
