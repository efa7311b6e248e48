"""What a detection opens is whole from the first moment of its block to the last, whoever deletes, and whenever."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from model_manager import DELETIONS_FORGIVEN, Models
from openscans.errors import Cancelled, DamagedWeights, DownloadFailed, ModelInUse, ModelMissing, UnknownTask
from openscans.progress import ignore_progress
from openscans.types import TrainedModel
from openscans.weights.dataset_locks import DatasetLocks
from tests.live_server import ROOT
from tests.model_homes import last, offline
from tests.release_server import DATASETS, Fault, ReleaseServer, training_files, write_folder

ROUNDS = 20

DELETING = """
import sys, time
from contextlib import suppress
from pathlib import Path
from openscans.errors import ModelInUse
from tests.model_homes import offline
models = offline(Path(sys.argv[1]))
print("ready", flush=True)
for _ in iter(sys.stdin.readline, ""):
    try:
        print(models.delete("vertebrae_mr").removed, flush=True)
    except ModelInUse:
        print("in use", flush=True)
"""
"""A process that deletes the model at every line of its input, and says what became of it."""


class Deleter:
    """Another process on the same home."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def delete(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@pytest.fixture
def deleter(home: Path) -> Iterator[Deleter]:
    program = [sys.executable, "-c", DELETING, str(home)]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Deleter(process)
        process.kill()


def is_whole(model: TrainedModel) -> bool:
    names = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")
    return all((model.folder / name).is_file() for name in names)


def enter(models: Models, key: str = "vertebrae_mr", *, download: bool = True) -> None:
    with models.ready(key, ignore_progress, download=download):
        pass


def test_what_is_missing_is_downloaded_first(models: Models) -> None:
    told: list[tuple[int, int]] = []
    with models.ready("vertebrae_mr", lambda done, total: told.append((done, total)), download=True) as opened:
        assert set(opened) == {756}
        assert is_whole(opened[756])
    assert told[-1] == (1000, 1000)


def test_a_task_opens_its_segmenter_and_its_localiser_whoever_that_belongs_to(home: Path, tmp_path: Path) -> None:
    results = write_folder(tmp_path / "results", training_files(292) | training_files(298))
    models = offline(home)
    for key in ("total_body", "vertebrae"):
        models.import_from(key, results)
    with models.ready("vertebrae", ignore_progress, download=True) as opened:
        assert [opened[number].dataset for number in (292, 298)] == [DATASETS[292].folder, DATASETS[298].folder]
        for key in ("total_body", "vertebrae"):
            with pytest.raises(ModelInUse):
                models.delete(key)


def installed(home: Path, results: Path, *numbers: int) -> Models:
    """Both tasks of CT with the datasets of these numbers."""
    for number in numbers:
        write_folder(results, training_files(number))
    models = offline(home)
    for key in ("total_body", "vertebrae"):
        models.import_from(key, results)
    return models


def test_the_network_that_looks_again_is_there_where_it_is_on_disk(home: Path, tmp_path: Path) -> None:
    models = installed(home, tmp_path / "results", 292, 297, 298)
    with models.ready("vertebrae", ignore_progress, download=False) as opened:
        assert set(opened) == {292, 297, 298}
        assert is_whole(opened[297])


@pytest.mark.parametrize("damaged", [False, True])
def test_the_network_that_looks_again_may_lack_and_nothing_is_downloaded_for_it(
    home: Path, tmp_path: Path, damaged: bool
) -> None:
    models = installed(home, tmp_path / "results", 292, 298, *([297] if damaged else []))
    if damaged:
        (models.trained_model(297).folder / "plans.json").unlink()
    with models.ready("vertebrae", ignore_progress, download=True) as opened:
        assert set(opened) == {292, 298}
    assert models.status("total_body").state == ("damaged" if damaged else "partial")


def test_the_network_that_looks_again_is_not_waited_for_while_somebody_changes_it(home: Path, tmp_path: Path) -> None:
    models = installed(home, tmp_path / "results", 292, 297, 298)
    locks = DatasetLocks(home / "models/totalsegmentator/locks")
    with (
        locks.try_exclusive([DATASETS[297].folder]),
        models.ready("vertebrae", ignore_progress, download=True) as opened,
    ):
        assert set(opened) == {292, 298}


def test_the_network_that_looks_again_may_lack_where_its_lock_cannot_be_had(home: Path, tmp_path: Path) -> None:
    models = installed(home, tmp_path / "results", 292, 298)
    lock = home / f"models/totalsegmentator/locks/{DATASETS[297].folder}.lock"
    lock.unlink()
    lock.mkdir()
    with models.ready("vertebrae", ignore_progress, download=False) as opened:
        assert set(opened) == {292, 298}


def test_the_network_that_looks_again_is_not_changed_meanwhile(home: Path, tmp_path: Path) -> None:
    models = installed(home, tmp_path / "results", 292, 297, 298)
    locks = DatasetLocks(home / "models/totalsegmentator/locks")
    with (
        models.ready("vertebrae", ignore_progress, download=True),
        pytest.raises(ModelInUse),
        locks.try_exclusive([DATASETS[297].folder]),
    ):
        pass


def test_without_download_a_missing_model_is_an_error_and_nothing_is_asked(
    models: Models, server: ReleaseServer
) -> None:
    with pytest.raises(ModelMissing):
        enter(models, download=False)
    assert server.requests == []


def test_an_unknown_task_is_an_error(models: Models) -> None:
    with pytest.raises(UnknownTask):
        enter(models, "lungs")


def test_what_stopped_the_download_is_raised(models: Models, server: ReleaseServer) -> None:
    server.always = Fault(status=403)
    with pytest.raises(DownloadFailed, match="refuses"):
        enter(models)


def test_who_stops_waiting_stops_no_download(models: Models, server: ReleaseServer) -> None:
    def leave(done: int, total: int) -> None:
        raise Cancelled

    server.faults.append(Fault(stall_after=0))
    with pytest.raises(Cancelled), models.ready("vertebrae_mr", leave, download=True):
        pass
    assert server.stalled.wait(10)
    server.resume.set()
    assert last(models.download("vertebrae_mr")).status == "complete"
    assert len(server.requests) == 1


def test_what_is_damaged_is_replaced_by_a_download_or_an_error(models: Models) -> None:
    enter(models)
    (models.trained_model(756).folder / "plans.json").unlink()
    with pytest.raises(DamagedWeights):
        enter(models, download=False)
    with models.ready("vertebrae_mr", ignore_progress, download=True) as opened:
        assert is_whole(opened[756])


def test_what_fails_inside_the_block_passes_and_lets_go(models: Models) -> None:
    with pytest.raises(ModelMissing, match="mine"), models.ready("vertebrae_mr", ignore_progress, download=True):
        raise ModelMissing("mine")
    assert models.delete("vertebrae_mr").removed


def test_deleted_between_download_and_lock_it_is_downloaded_again(
    models: Models, server: ReleaseServer, deleter: Deleter
) -> None:
    answers: list[str] = []

    def report(done: int, total: int) -> None:
        # The last that is told before the lock is taken.
        if done == total and not answers:
            answers.append(deleter.delete())

    with models.ready("vertebrae_mr", report, download=True) as opened:
        assert is_whole(opened[756])
        assert deleter.delete() == "in use"
        assert is_whole(opened[756])
    assert answers == ["True"]
    assert len(server.requests) == 2
    assert deleter.delete() == "True"


def test_deleted_again_and_again_it_is_missing_in_the_end(
    models: Models, server: ReleaseServer, deleter: Deleter
) -> None:
    def report(done: int, total: int) -> None:
        if done == total:
            assert deleter.delete() == "True"

    with pytest.raises(ModelMissing), models.ready("vertebrae_mr", report, download=True):
        pass
    assert len(server.requests) == DELETIONS_FORGIVEN + 1


def test_whenever_others_delete_no_block_is_entered_without_the_model(models: Models, home: Path) -> None:
    spoiling = (
        "import time\nwhile True:\n    with suppress(ModelInUse): models.delete('vertebrae_mr')\n    time.sleep(0.01)\n"
    )
    program = [sys.executable, "-c", DELETING.partition("for _")[0] + spoiling, str(home)]
    entered = 0
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for _ in range(ROUNDS):
                with suppress(ModelMissing), models.ready("vertebrae_mr", ignore_progress, download=True) as opened:
                    assert is_whole(opened[756])
                    entered += 1
        finally:
            process.kill()
    assert entered > 0
