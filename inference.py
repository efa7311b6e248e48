"""The pipeline: a path becomes vertebrae. Localise → crop → label → measure, telling how far it is.

Knows the order of the steps; nothing of HTTP, processes, or where weights come from.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

from openscans import networks, volumes
from openscans.errors import InconsistentGeometry, ModelError, ModelMissing, OutOfMemory
from openscans.networks.pool import NetworkPool
from openscans.progress import Forecast, Report, StageReport
from openscans.segmentation import (
    findings,
    grids,
    labelling,
    memory_check,
    packing,
    patch_count,
    second_look,
    vertebrae,
)
from openscans.segmentation.roi import SpineRoi, join_rois
from openscans.system import parallel
from openscans.types import (
    Bounds,
    Detection,
    DetectionTask,
    ImageFacts,
    InferenceOptions,
    ResultWarning,
    TrainedModel,
    ValueRange,
    Voxel,
)


class Stopwatch:
    """Wall time of each stage, in the order in which they first ended."""

    def __init__(self) -> None:
        self._since = perf_counter()
        self.timings_ms: dict[str, int] = {}

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.timings_ms[stage] = self.timings_ms.get(stage, 0) + round((now - self._since) * 1000)
        self._since = now


@dataclass(frozen=True)
class _Attempt:
    """What a detection has to go by once its image is read, on one device. ``air_below``: of `Intensities`."""

    task: DetectionTask
    volume: volumes.Volume
    air_below: float
    device: str
    report: StageReport
    watch: Stopwatch


@dataclass(frozen=True)
class _Labelled:
    """What the networks that ``ran``, in that order, found around the spine's ``roi``; None where there is no spine."""

    label_map: vertebrae.LabelMap | None
    ran: tuple[TrainedModel, ...]
    roi: SpineRoi | None = None
    warnings: tuple[ResultWarning, ...] = ()


class Pipeline:
    """Detects vertebrae, and keeps the networks it has loaded for the next image.

    There is one in a process: it says how many threads compute there.
    """

    def __init__(self, options: InferenceOptions, load: networks.Load = networks.load) -> None:
        parallel.set_thread_count(options.threads)
        self._tiles = options.tiles
        self._pool = NetworkPool(options, load)
        self._images = volumes.LastOpened(look_beside=options.look_beside)
        self._unfit: dict[str, ResultWarning] = {}
        self._ran: set[tuple[str, str]] = set()
        """Digest and device of the networks that keep the memory that a patch took; a localiser lets go of its own."""
        networks.tidy(options.cache_folder)

    def open(self, path: Path, series_uid: str | None, report: StageReport) -> str | None:
        """ "CT" or "MR" as the headers say, None where the format does not tell. Raises VolumeError, and Cancelled.

        The image stays open for a detection in it, if that is what is asked for next.
        """
        return self._images.open(path, series_uid, partial(report, "reading")).modality

    def detect(self, task: DetectionTask, report: StageReport) -> Detection:
        """Read the image and find its vertebrae. Raises VolumeError, ModelError, OutOfMemory, and Cancelled."""
        watch = Stopwatch()
        device, fallback = self._choose_device(task.device)
        volume = self._read(task, device, report)
        intensities = volumes.look_at_intensities(volume.voxels, volume.told, is_mr=task.modality == "MR")
        watch.lap("read")
        attempt = _Attempt(task, volume, intensities.air_below, device, report, watch)
        try:
            labelled = self._label(attempt)
        except (OutOfMemory, networks.UnfitDevice) as reason:
            if device == "cpu":
                raise
            fallback = self._leave(device, reason)
            device = "cpu"
            labelled = self._label(replace(attempt, device=device))
        label_map = labelled.label_map
        ran = self._pool.running(labelled.ran, device)
        warnings = [*volume.warnings, *([fallback] if fallback else []), *networks.slow_engine_warnings(ran)]
        warnings += [*self._pool.warnings(labelled.ran, device), *labelled.warnings]
        if task.modality_assumed:
            warnings += volumes.assumed_ct_warnings(volume.voxels)
        warnings += intensities.warnings
        found = findings.NOTHING
        if label_map is not None:
            report("measuring", 0, 1)
            found = findings.read_findings(label_map, volume)
            report("measuring", 1, 1)
            watch.lap("measure")
        return Detection(
            vertebrae=found.vertebrae,
            image=describe_image(volume, intensities.values),
            task=replace(task, robust=task.robust if task.robust in labelled.ran else None),
            device=device,
            precision=ran[-1].precision,
            detected_at=datetime.now(UTC).isoformat(timespec="seconds"),
            networks=ran,
            warnings=(*warnings, *found.warnings),
            timings_ms=watch.timings_ms,
            labels=None if label_map is None else packing.pack_labels(label_map, volume),
            uid_locations=volume.locate_uids({mark.sop_instance_uid for one in found.vertebrae for mark in one.marks}),
        )

    def load(self, models: tuple[TrainedModel, ...], device: str) -> None:
        """Load the networks of ``models`` for what ``device`` names, before any image is there, if there is room.

        Raises ModelError, OutOfMemory.
        """
        device, _ = self._choose_device(device)
        try:
            self._load(models, device)
        except (OutOfMemory, networks.UnfitDevice) as reason:
            if device == "cpu":
                raise
            self._leave(device, reason)
            self._load(models, "cpu")

    def _load(self, models: tuple[TrainedModel, ...], device: str) -> None:
        memory_check.check_networks([self._run(model, device) for model in models])
        for model in models:
            self._pool.prepare(model, device)
        for model in models:
            self._pool.take(model, device)

    def _leave(self, device: str, reason: OutOfMemory | networks.UnfitDevice) -> ResultWarning:
        """The warning that the CPU goes on; a device that is unfit is not asked again."""
        warning = networks.fallback_warning(device, reason)
        if isinstance(reason, networks.UnfitDevice):
            self._unfit[device] = warning
        return warning

    def _choose_device(self, wish: str) -> tuple[str, ResultWarning | None]:
        """As `networks.choose_device`; one that was found unfit stays so as long as the process."""
        device, fallback = networks.choose_device(wish)
        return ("cpu", self._unfit[device]) if device in self._unfit else (device, fallback)

    def _read(self, task: DetectionTask, device: str, report: StageReport) -> volumes.Volume:
        image = self._images.take(task.path, task.series_uid, partial(report, "reading"))
        patches: list[tuple[TrainedModel, int]] = []

        def begin(extent: volumes.Extent) -> None:
            self._prepare(task, device, extent)
            patches[:] = self._patches(task, extent)

        told = _with_forecast(report, "reading", lambda: Forecast(later_s=self._seconds(patches, device)))
        return image.read(told, begin)

    def _prepare(self, task: DetectionTask, device: str, extent: volumes.Extent) -> None:
        """Begin to load the networks, if there is room and time for the whole detection.

        Raises InconsistentGeometry, OutOfMemory.
        """
        z, y, x = extent.shape_zyx
        self._check_patches(task.localiser or task.segmenter, grids.whole_box(Voxel(x, y, z)), extent.affine_lps)
        localiser = None if task.localiser is None else self._run(task.localiser, device)
        memory_check.check_detection(extent, localiser, self._run(task.segmenter, device))
        # Loading takes as long as reading, and both leave a core to the other.
        for model in (task.localiser, task.segmenter):
            if model is not None:
                self._pool.prepare(model, device)

    def _check_patches(self, model: TrainedModel, box: Bounds, affine_lps: volumes.Affine) -> None:
        patch_count.check_patches(self._pool.plan(model), box, affine_lps, step=model.step)

    def _patches(self, task: DetectionTask, extent: volumes.Extent) -> list[tuple[TrainedModel, int]]:
        """The networks in their order, each with about how many patches it will compute."""
        segmenter, localiser = task.segmenter, task.localiser
        if localiser is None:
            return [(segmenter, patch_count.count_patches(self._pool.plan(segmenter), extent, step=segmenter.step))]
        return [
            (localiser, patch_count.count_patches(self._pool.plan(localiser), extent, step=localiser.step)),
            (segmenter, patch_count.count_spine_patches(self._pool.plan(segmenter), extent, step=segmenter.step)),
        ]

    def _seconds(self, patches: list[tuple[TrainedModel, int]], device: str) -> float | None:
        """What so many ``patches`` of each network take; None where the pace of one is not known yet."""
        seconds = 0.0
        for model, count in patches:
            patch_s = self._pool.patch_s(model, device)
            if patch_s is None:
                return None
            seconds += count * patch_s
        return seconds

    def _run(self, model: TrainedModel, device: str) -> memory_check.NetworkRun:
        return memory_check.NetworkRun(
            self._pool.plan(model), device, model.step, held=(model.sha256, device) in self._ran
        )

    def _label(self, attempt: _Attempt) -> _Labelled:
        """What is found around the spine; where the localiser is in doubt, the robust network looks again."""
        task = attempt.task
        if task.localiser is None:
            return _Labelled(self._segment(attempt, None), (task.segmenter,))
        roi = self._localise(attempt, task.localiser)
        if roi is None:
            found = _Labelled(None, (task.localiser,))
        else:
            found = _Labelled(self._segment(attempt, roi), (task.localiser, task.segmenter), roi)
        doubt = _doubt_of(found, attempt)
        return found if doubt is None else self._look_again(attempt, found, doubt)

    def _look_again(self, attempt: _Attempt, found: _Labelled, doubt: second_look.Doubt) -> _Labelled:
        """What the robust network makes of ``found``, once; where it cannot look, that with a warning that says so."""
        try:
            robust = self._prepare_robust(attempt)
            if robust == attempt.task.segmenter:
                warning = second_look.whole_warning(doubt, robust.spacing_mm)
                return _Labelled(self._segment(attempt, None), (*found.ran, robust), warnings=(warning,))
            return self._label_beyond(attempt, found, doubt, robust)
        except (InconsistentGeometry, ModelError, OutOfMemory) as reason:
            if isinstance(reason, OutOfMemory) and attempt.device != "cpu":
                raise
            return replace(found, warnings=(second_look.missing_warning(doubt, reason.message),))
        except MemoryError:
            return replace(found, warnings=(second_look.missing_warning(doubt, "There is not enough memory."),))

    def _label_beyond(
        self, attempt: _Attempt, found: _Labelled, doubt: second_look.Doubt, robust: TrainedModel
    ) -> _Labelled:
        """What lies where ``robust`` finds the spine, and where the localiser did; ``found`` if that is no more."""
        volume, first = attempt.volume, found.roi
        again = self._localise(attempt, robust)
        ran = (*found.ran[:1], robust)
        if again is None or (first and not second_look.is_wider(again.box, first.box, doubt.cut, volume.affine_lps)):
            warning = second_look.none_warning(doubt, robust.spacing_mm)
            return replace(found, ran=(*ran, *found.ran[1:]), warnings=(warning,))
        label_map = self._segment(attempt, join_rois(again, first) if first else again)
        still = second_look.find_cut(label_map, volume.affine_lps, volume.size)
        warning = second_look.found_warning(doubt, robust.spacing_mm, still=still)
        return _Labelled(label_map, (*ran, attempt.task.segmenter), warnings=(warning,))

    def _prepare_robust(self, attempt: _Attempt) -> TrainedModel:
        """The network that looks again, once it is on its way.

        Raises ModelError where it is not here, InconsistentGeometry, OutOfMemory.
        """
        task, volume, device = attempt.task, attempt.volume, attempt.device
        if task.robust is None:
            raise ModelMissing(task.robust_lacks)
        if (task.segmenter.sha256, device) in self._ran:
            self._pool.take(task.segmenter, device).release()
            self._ran.discard((task.segmenter.sha256, device))
        whole = grids.whole_box(volume.size)
        self._check_patches(task.robust, whole, volume.affine_lps)
        memory_check.check_further_run(self._run(task.robust, device), whole, volume.affine_lps)
        # It takes a while to be loaded.
        attempt.report("localising", 0, 1)
        self._pool.prepare(task.robust, device)
        return task.robust

    def _segment(self, attempt: _Attempt, roi: SpineRoi | None) -> vertebrae.LabelMap:
        """What the segmenter finds around the spine, or in the whole image."""
        task, volume, device = attempt.task, attempt.volume, attempt.device
        segmenter = self._pool.take(task.segmenter, device)
        attempt.watch.lap("load")
        box = None if roi is None else roi.box
        seen = box or grids.whole_box(volume.size)
        self._check_patches(task.segmenter, seen, volume.affine_lps)
        memory_check.check_run(self._run(task.segmenter, device), seen, volume.affine_lps)
        label_map = labelling.segment(
            volume,
            box,
            segmenter,
            step=task.segmenter.step,
            report=_with_forecast(attempt.report, "segmenting", lambda: Forecast(segmenter.patch_s, 0.0)),
            roi=self._narrow(roi),
        )
        self._pool.keep_pace(task.segmenter, device)
        if segmenter.runs.precision == "float32":
            # Its arrays are twice as large as others, and would lie beside the next image's localiser. To take them
            # again costs 0.3 s, of a detection of ten.
            segmenter.release()
        else:
            self._ran.add((task.segmenter.sha256, device))
        attempt.watch.lap("segment")
        return label_map

    def _localise(self, attempt: _Attempt, model: TrainedModel) -> SpineRoi | None:
        """`localise` by the network of ``model``, which lets go of its memory: the next takes several times as much."""
        volume, device = attempt.volume, attempt.device
        localiser = self._pool.take(model, device)
        attempt.watch.lap("load")
        z, y, x = volume.voxels.shape
        later = self._patches(attempt.task, volumes.Extent((z, y, x), volume.affine_lps))[1:]
        roi = labelling.localise(
            volume,
            localiser,
            step=model.step,
            report=_with_forecast(
                attempt.report, "localising", lambda: Forecast(localiser.patch_s, self._seconds(later, device))
            ),
            air_below=None if self._tiles == "exact" else attempt.air_below,
        )
        localiser.release()
        # The one that looks again labels in fast mode, and then keeps its memory.
        self._ran.discard((model.sha256, device))
        self._pool.keep_pace(model, device)
        attempt.watch.lap("localise")
        return roi

    def _narrow(self, roi: SpineRoi | None) -> SpineRoi | None:
        """What the segmenter has to see of the box; None for all of it."""
        if roi is None or self._tiles == "exact":
            return None
        return replace(roi, follow_spine=self._tiles == "course")


def _doubt_of(found: _Labelled, attempt: _Attempt) -> second_look.Doubt | None:
    """Why the robust network has to look again; None where all is well, or where it is the one that labelled."""
    task, volume = attempt.task, attempt.volume
    if task.localiser is None:
        return None
    cut = None
    if found.label_map is not None:
        cut = second_look.find_cut(found.label_map, volume.affine_lps, volume.size)
        if cut is None or task.robust == task.segmenter:
            return None
    return second_look.Doubt(task.localiser.spacing_mm, cut)


def _with_forecast(report: StageReport, stage: str, forecast: Callable[[], Forecast]) -> Report:
    """A `Report` of ``stage`` that tells each time what is expected then."""

    def tell(done: int, total: int) -> None:
        report(stage, done, total, forecast())

    return tell


def describe_image(volume: volumes.Volume, values: ValueRange) -> ImageFacts:
    return ImageFacts(
        modality=volume.modality,
        size=volume.image_size,
        spacing_mm=volume.image_spacing_mm,
        series_instance_uid=volume.series_uid.uid or None,
        study_instance_uid=volume.study_uid.uid or None,
        frame_of_reference_uid=volume.frame_of_reference_uid.uid or None,
        values=values,
    )
