"""Models in a home folder of one's own, and what tests ask about both."""

from pathlib import Path

from model_manager import Models
from openscans.weights.digest_rules import ANY_ZIP, DigestRules
from openscans.weights.download_task import TELL_EVERY_S, DownloadSnapshot, DownloadTask
from openscans.weights.releases import Installer
from tests.live_server import LiveServer
from tests.release_server import DATASETS

MR = DATASETS[756].folder
CHECKPOINT = f"{MR}/{DATASETS[756].training}/fold_0/checkpoint_final.pth"
NEVER = "http://127.0.0.1:9/never-asked"


def offline(home: Path, digests: DigestRules = ANY_ZIP) -> Models:
    return Models(home, Installer((NEVER,), offline=True, digests=digests))


def online(home: Path, url: str, digests: DigestRules = ANY_ZIP) -> Models:
    return Models(home, Installer((url,), offline=False, digests=digests))


def followed(download: DownloadTask) -> list[DownloadSnapshot]:
    """All its states, to the last."""
    return list(download.states(gap_s=TELL_EVERY_S))


def last(download: DownloadTask) -> DownloadSnapshot:
    return followed(download)[-1]


def files_below(folder: Path) -> set[str]:
    """Without locks, which are empty and are never removed."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix() for path in files}


def told_state(server: LiveServer) -> str:
    """The MR model's, as the server tells it."""
    answer = server.get("/api/models/status?task=vertebrae_mr")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["state"])


def import_over_http(server: LiveServer, path: Path) -> None:
    """Take the MR model from ``path``; it is ready then."""
    answer = server.post("/api/models/import/vertebrae_mr", {"file_path": str(path)})
    assert (answer.status_code, answer.json().get("state")) == (200, "ready"), answer.text
