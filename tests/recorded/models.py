"""What is asked about models: when none is there, when they are imported, damaged, deleted, downloaded.

Knows the HTTP contract and the layout of weights; nothing of what networks find.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phantom import layout, specs
from phantom.demo import WEIGHTS
from tests import bad_files, checkpoints
from tests.live_server import LiveServer
from tests.recorded import images
from tests.recorded.answers import DETECT, Recorder
from tests.recorded.program import RUN_S, files_below
from tests.release_server import Fault, ReleaseServer, training_files, write_folder, write_zip

TASKS = ("vertebrae", "total_body", "vertebrae_mr")

LARGE_CHECKPOINT_BYTES = 200_000_000
"""Of zeros, which are 200 kB in the zip: unpacking them takes long enough to be seen."""

PACE_S = 0.03
"""Between two pieces of that zip, so that its way here takes two seconds and has a speed."""


def no_models(recorder: Recorder, server: LiveServer, folder: Path) -> None:
    recorder.ask("no models: all", server, "GET", "/api/models/all")
    recorder.ask("no models: cache-stats", server, "GET", "/api/models/cache-stats")
    for task in TASKS:
        recorder.ask(f"no models: delete {task}", server, "DELETE", f"/api/models/{task}")
    recorder.ask("no models: verify", server, "POST", "/api/models/verify/vertebrae")
    recorder.ask("no models: cancel a download", server, "DELETE", "/api/models/download/vertebrae")
    recorder.events("no models: download offline", server, "POST", "/api/models/download/vertebrae", brief=True)
    folder.mkdir()
    scan = images.air_nifti(folder)
    recorder.detect("no models: detection", server, scan)
    recorder.events("no models: detection as events", server, "POST", DETECT, {"file_path": str(scan)}, brief=True)
    for method, path in (
        ("GET", "status?task=lungs"),
        ("GET", "download/lungs"),
        ("POST", "download/lungs"),
        ("DELETE", "download/lungs"),
        ("DELETE", "lungs"),
        ("POST", "verify/lungs"),
    ):
        recorder.ask(f"unknown task: {method} {path}", server, method, f"/api/models/{path}")
    import_model(recorder, "unknown task: import", server, "lungs", folder)


def imports(recorder: Recorder, server: LiveServer, folder: Path) -> None:
    """What cannot be imported, then all of the phantom's networks, then what is done with a model that is there."""
    no_zip, other_zip = folder / "no.zip", folder / "other.zip"
    no_zip.write_bytes(b"no zip")
    write_zip(other_zip, {"notes.txt": b"nothing"})
    for name, path in {
        "a relative path": "weights",
        "what is not there": folder / "missing",
        "a folder without it": bad_files.empty_folder(folder),
        "no zip": no_zip,
        "another zip": other_zip,
    }.items():
        import_model(recorder, f"import: {name}", server, "vertebrae", path)
    whole = write_folder(folder / "mr", training_files(756))
    checkpoint = next(whole.rglob("*.pth"))
    mr_zip = write_zip(folder / "mr.zip", training_files(756))
    kept = checkpoint.rename(folder / "kept.pth")
    import_model(recorder, "import: a folder without its checkpoint", server, "vertebrae_mr", whole)
    kept.rename(checkpoint)
    import_model(recorder, "import: MR from a folder", server, "vertebrae_mr", whole)
    recorder.ask("MR model: verify", server, "POST", "/api/models/verify/vertebrae_mr")
    _damage(server.home)
    recorder.ask("MR model, damaged: verify", server, "POST", "/api/models/verify/vertebrae_mr")
    scan = images.air_nifti(folder / "damaged")
    recorder.detect("MR model, damaged: detection", server, scan, model="vertebrae_mr")
    import_model(recorder, "import: MR from a zip", server, "vertebrae_mr", mr_zip)
    recorder.keep("home with the MR model", files_below(server.home))
    recorder.ask("MR model: delete", server, "DELETE", "/api/models/vertebrae_mr")
    for task in ("total_body", "vertebrae"):
        import_model(recorder, f"import: {task}", server, task, WEIGHTS)
    recorder.ask("models: all", server, "GET", "/api/models/all")
    recorder.ask("models: status", server, "GET", "/api/models/status")
    for task in TASKS:
        recorder.ask(f"models: status of {task}", server, "GET", f"/api/models/status?task={task}")
    recorder.ask("models: cache-stats", server, "GET", "/api/models/cache-stats")
    recorder.events("models: download of what is there", server, "GET", "/api/models/download/vertebrae", brief=True)
    for name in ("total_body", "vertebrae", "total_body"):
        first = f"models: delete {name}" not in recorder.scenarios
        again = "" if first else ", again"
        recorder.ask(f"models: delete {name}{again}", server, "DELETE", f"/api/models/{name}")


def import_model(recorder: Recorder, name: str, server: LiveServer, task: str, path: Path | str) -> None:
    recorder.ask(name, server, "POST", f"/api/models/import/{task}", {"file_path": str(path)})


def _damage(home: Path) -> None:
    """Change a byte of an installed checkpoint and leave its size."""
    [checkpoint] = (home / "models").rglob("*.pth")
    content = bytearray(checkpoint.read_bytes())
    content[1000] ^= 1
    # In place of the old file, as that may be a link to what was imported.
    checkpoint.unlink()
    checkpoint.write_bytes(content)


@contextmanager
def release(folder: Path) -> Iterator[ReleaseServer]:
    """The small trained networks, and for MR one that takes its time."""
    for dataset in (292, 297, 298):
        spec = specs.SPECS[dataset]
        layout.zip_weights(WEIGHTS / spec.folder, folder / spec.version / f"{spec.folder}.zip")
    mr = specs.SPECS[756]
    files = training_files(756, checkpoint_bytes=0)
    checkpoint = next(name for name in files if name.endswith(".pth"))
    path = folder / mr.version / f"{mr.folder}.zip"
    zeros = checkpoints.checkpoint(bytes(LARGE_CHECKPOINT_BYTES), kind="FloatStorage", width=4)
    write_zip(path, {**files, checkpoint: zeros})
    with ReleaseServer.over(folder) as server:
        yield server


def downloads(recorder: Recorder, server: LiveServer, mirror: ReleaseServer) -> None:
    place = "/api/models/download/vertebrae_mr"
    mirror.faults.append(Fault(status=404))
    recorder.events("download: not at the mirror", server, "POST", place, brief=True)
    _stopped_download(recorder, server, mirror, place)
    mirror.faults.append(Fault(gap_s=PACE_S))
    recorder.events("download: whole", server, "POST", place)
    recorder.events("download: of what is there", server, "POST", place, brief=True)
    recorder.ask("download: status after it", server, "GET", "/api/models/status?task=vertebrae_mr")
    recorder.ask("download: delete it", server, "DELETE", "/api/models/vertebrae_mr")


def _stopped_download(recorder: Recorder, server: LiveServer, mirror: ReleaseServer, place: str) -> None:
    mirror.faults.append(Fault(stall_after=20_000))
    with server.events("POST", place) as events:
        assert mirror.stalled.wait(RUN_S)
        # The mirror has sent its part; that it has come is told a moment later.
        next(event for event in events if "downloaded_mb" in event)
        status = "/api/models/status?task=vertebrae_mr"
        recorder.ask("download, running: status", server, "GET", status)
        recorder.ask("download, running: delete", server, "DELETE", "/api/models/vertebrae_mr")
        recorder.ask("download, running: verify", server, "POST", "/api/models/verify/vertebrae_mr")
        import_model(recorder, "download, running: import", server, "vertebrae_mr", WEIGHTS)
        recorder.ask("download, running: cancel", server, "DELETE", place)
        recorder.keep("download, cancelled: last event", [*events][-1])
