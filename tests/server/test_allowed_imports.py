"""The allowed roots hold for weights too: no link in a folder that is imported leads out of them.

Whatever would be read is looked at before anything is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from openscans.errors import ForbiddenPath
from openscans.weights.installation import REQUIRED
from openscans.weights.originals import find_originals
from openscans.weights.status import place_of
from tests.live_server import LiveServer, live_server
from tests.model_homes import CHECKPOINT, MR, files_below
from tests.release_server import DATASETS, training_files, write_folder, write_zip

LARGE_BYTES = 1_200_000
"""Worth a hard link, by which a file outside would stay readable whatever becomes of its first name."""

TRAINING = DATASETS[756].training


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is allowed, and one beside it with whole weights that is not."""
    parent = tmp_path_factory.mktemp("places")
    (parent / "allowed").mkdir()
    write_folder(parent / "outside", training_files(756, checkpoint_bytes=LARGE_BYTES))
    return parent


@pytest.fixture(scope="module")
def server(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    env = {"OPENSCANS_OFFLINE": "1", "OPENSCANS_ALLOWED_ROOTS": str(places / "allowed")}
    with live_server(tmp_path_factory.mktemp("home"), env) as running:
        yield running


@pytest.fixture
def chosen(places: Path, tmp_path: Path) -> Path:
    """The folder that is imported, below the root."""
    folder = places / "allowed" / tmp_path.name
    folder.mkdir()
    return folder


def imported(server: LiveServer, folder: Path) -> httpx.Response:
    return server.post("/api/models/import/vertebrae_mr", {"file_path": str(folder)})


def linked_dataset(chosen: Path, target: Path) -> None:
    (chosen / MR).symlink_to(target / MR)


def linked_results(chosen: Path, target: Path) -> None:
    (chosen / "results").symlink_to(target)


def linked_results_deeper(chosen: Path, target: Path) -> None:
    (chosen / "nnunet").mkdir()
    (chosen / "nnunet" / "results").symlink_to(target)


def linked_training(chosen: Path, target: Path) -> None:
    (chosen / MR).mkdir()
    (chosen / MR / TRAINING).symlink_to(target / MR / TRAINING)


def linked_fold(chosen: Path, target: Path) -> None:
    write_folder(chosen, training_files(756))
    (chosen / CHECKPOINT).unlink()
    (chosen / CHECKPOINT).parent.rmdir()
    (chosen / CHECKPOINT).parent.symlink_to((target / CHECKPOINT).parent)


def linked_checkpoint(chosen: Path, target: Path) -> None:
    write_folder(chosen, training_files(756))
    (chosen / CHECKPOINT).unlink()
    (chosen / CHECKPOINT).symlink_to(target / CHECKPOINT)


def linked_twice(chosen: Path, target: Path) -> None:
    (chosen / "between").symlink_to(target)
    (chosen / "results").symlink_to("between")


LINKS = [
    linked_dataset,
    linked_results,
    linked_results_deeper,
    linked_training,
    linked_fold,
    linked_checkpoint,
    linked_twice,
]


@pytest.mark.parametrize("link", LINKS)
def test_no_link_leads_out_of_the_roots(
    server: LiveServer, places: Path, chosen: Path, link: Callable[[Path, Path], None]
) -> None:
    link(chosen, places / "outside")
    answer = imported(server, chosen)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_path")
    assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "absent"
    assert (places / "outside" / CHECKPOINT).stat().st_nlink == 1
    assert not [name for name in files_below(server.home) if MR in name]


@pytest.mark.parametrize("link", LINKS)
def test_outside_the_roots_missing_and_there_look_the_same(
    server: LiveServer, places: Path, chosen: Path, link: Callable[[Path, Path], None]
) -> None:
    link(chosen, places / "nowhere")
    missing = imported(server, chosen).json()
    assert missing["code"] == "forbidden_path"
    for path in chosen.rglob("*"):
        if path.is_symlink():
            target = path.readlink()
            path.unlink()
            path.symlink_to(str(target).replace("nowhere", "outside"))
    assert imported(server, chosen).json() == missing


def test_a_linked_folder_outside_is_refused_whether_it_holds_the_file_or_not(
    server: LiveServer, places: Path, chosen: Path
) -> None:
    (places / "outside" / "empty").mkdir()
    write_folder(chosen, training_files(756))
    (chosen / CHECKPOINT).unlink()
    (chosen / CHECKPOINT).parent.rmdir()
    (chosen / CHECKPOINT).parent.symlink_to(places / "outside" / "empty")
    assert imported(server, chosen).json()["code"] == "forbidden_path"


@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_stays_inside_the_roots_is_followed(
    server: LiveServer, places: Path, chosen: Path, link: Callable[[Path, Path], None]
) -> None:
    inside = write_folder(places / "allowed" / f"theirs-{chosen.name}", training_files(756, LARGE_BYTES))
    link(chosen, inside)
    answer = imported(server, chosen)
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    assert (inside / CHECKPOINT).stat().st_nlink == 2
    server.delete("/api/models/vertebrae_mr")


def test_one_link_that_leads_out_keeps_all_of_a_task_from_being_read(
    server: LiveServer, places: Path, chosen: Path
) -> None:
    write_folder(chosen, training_files(298))
    (chosen / DATASETS[297].folder).symlink_to(places / "outside" / MR)
    answer = server.post("/api/models/import/total_body", {"file_path": str(chosen)})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_path")
    assert server.get("/api/models/status?task=total_body").json()["state"] == "absent"


def test_a_zip_outside_is_refused_and_one_inside_is_taken(server: LiveServer, places: Path, chosen: Path) -> None:
    outside = write_zip(places / "outside" / "mr.zip", training_files(756))
    (chosen / "link.zip").symlink_to(outside)
    assert imported(server, chosen / "link.zip").json()["code"] == "forbidden_path"
    write_zip(chosen / "mr.zip", training_files(756))
    assert imported(server, chosen / "mr.zip").json()["state"] == "ready"
    server.delete("/api/models/vertebrae_mr")


def test_without_roots_linked_files_are_taken_but_no_device_is(tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    linked_checkpoint(tmp_path / "linked", write_folder(tmp_path / "theirs", training_files(756, LARGE_BYTES)))
    (tmp_path / "devices").mkdir()
    linked_checkpoint(tmp_path / "devices", tmp_path)
    (tmp_path / "devices" / CHECKPOINT).unlink()
    (tmp_path / "devices" / CHECKPOINT).symlink_to("/proc/self/environ")
    with live_server(tmp_path / "home", {"OPENSCANS_OFFLINE": "1"}) as free:
        assert imported(free, tmp_path / "devices").json()["code"] == "forbidden_path"
        assert imported(free, tmp_path / "linked").json()["state"] == "ready"


@pytest.mark.parametrize("replaced", ["fold_0", "fold_0/checkpoint_final.pth"])
def test_what_becomes_a_link_after_it_was_looked_at_is_not_read(tmp_path: Path, replaced: str) -> None:
    inside = write_folder(tmp_path / "inside", training_files(756, LARGE_BYTES))
    outside = write_folder(tmp_path / "outside", training_files(756, LARGE_BYTES))
    training = inside / MR / TRAINING
    originals = find_originals(training, REQUIRED, [inside])
    (training / replaced).rename(tmp_path / "moved")
    (training / replaced).symlink_to(outside / MR / TRAINING / replaced)
    place = place_of(DATASETS[756], tmp_path / "home")
    with pytest.raises(ForbiddenPath):
        place.install_folder(inside / MR, originals)
    assert (outside / CHECKPOINT).stat().st_nlink == 1
    assert files_below(tmp_path / "home") == set()
