"""What a release server does wrong shows in a model's download as truth: nothing half is ready, nothing told falls."""

import itertools
from pathlib import Path

import pytest

from model_manager import Models
from openscans.weights.releases import Installer
from openscans.weights.retry_policy import RetryPolicy
from tests.model_homes import files_below, followed, last
from tests.release_server import CHECKPOINT_BYTES, Fault, ReleaseServer, release_zip

BRISK = RetryPolicy(stall_s=0.5, first_pause_s=0.01)
CUT = CHECKPOINT_BYTES // 2


def models_from(home: Path, server: ReleaseServer, retry_policy: RetryPolicy) -> Models:
    return Models(home, Installer((server.url,), offline=False, retry_policy=retry_policy))


@pytest.fixture
def models(home: Path, server: ReleaseServer) -> Models:
    return models_from(home, server, BRISK)


def test_a_zip_longer_than_announced_is_not_taken_for_whole(models: Models, server: ReleaseServer, home: Path) -> None:
    server.always = Fault(announce=release_zip(server.folder, 756).stat().st_size - 1000)
    failed = last(models.download("vertebrae_mr"))
    assert (failed.status, failed.code) == ("error", "download_failed")
    assert models.status("vertebrae_mr").state == "absent"
    assert files_below(home) == set()


def test_a_server_that_recovers_brings_the_model(models: Models, server: ReleaseServer) -> None:
    server.faults += [Fault(status=500), Fault(drop_after=CUT), Fault(status=503), Fault(stall_after=CUT // 2)]
    assert last(models.download("vertebrae_mr")).status == "complete"
    assert models.status("vertebrae_mr").downloaded


def test_nothing_told_falls_across_cuts_stalls_and_a_changed_file(models: Models, server: ReleaseServer) -> None:
    server.faults += [
        Fault(drop_after=CUT, headers={"ETag": '"one"'}, gap_s=0.02),
        Fault(headers={"ETag": '"two"'}, drop_after=CUT // 2, gap_s=0.02),
        Fault(headers={"ETag": '"two"'}, stall_after=CUT // 4),
    ]
    states = followed(models.download("total_body"))
    for before, after in itertools.pairwise(states):
        assert before.progress <= after.progress
        assert (before.downloaded_mb or 0) <= (after.downloaded_mb or 0)
        assert (after.speed_mb_s or 0) >= 0
        assert (after.eta_s or 0) >= 0
    assert (states[-1].status, states[-1].progress) == ("complete", 1.0)
    assert [state.over for state in states].count(True) == 1


def test_after_a_cancel_a_new_download_need_not_wait_for_the_silent_server(home: Path, server: ReleaseServer) -> None:
    models = models_from(home, server, RetryPolicy(stall_s=60))
    server.faults.append(Fault(stall_after=CUT))
    models.download("vertebrae_mr")
    assert server.stalled.wait(10)
    assert models.cancel("vertebrae_mr")
    assert last(models.download("vertebrae_mr")).status == "complete"
    assert not server.resume.is_set()
