"""What is asked about images: every kind of scan, what is refused, and what disturbs a detection that runs.

Knows the HTTP contract and the phantom's scans; nothing of the program's modules.
"""

from pathlib import Path

from tests import bad_files
from tests.live_server import LiveServer, eventually
from tests.recorded import images, models
from tests.recorded.answers import DETECT, Recorder
from tests.recorded.program import Program, emptied, files_below
from tests.release_server import Fault

SLOW_S = 0.0003
"""Between two pieces of the networks' zips, so that a detection that waits for them is seen to."""


def record_detections(recorder: Recorder, program: Program) -> None:
    """A server that downloads its models, then every kind of image, and what disturbs a detection."""
    with models.release(program.folder / "release") as mirror:
        settings = {"OPENSCANS_WEIGHTS_URL": mirror.url, "OPENSCANS_QUEUE": "0"}
        with program.server("home", **settings) as server:
            models.downloads(recorder, server, mirror)
            scans = program.folder / "scans"
            mirror.always = Fault(gap_s=SLOW_S)
            _first_detection(recorder, server, scans)
            _every_scan(recorder, server, scans)
            _every_choice(recorder, server, scans)
            _air(recorder, server, scans)
            _bad_files(recorder, server, scans)
            _disturbed(recorder, server, scans)
            # On a busy machine the worker may have been ended, because it took long to hear that it was cancelled.
            assert server.detect(scans / "NIfTI" / "scan.nii", fast_mode=True, use_cache=False).status_code == 200
            assert eventually(lambda: server.get("/api/health").json()["worker"] != "busy")
            recorder.ask("worker after all", server, "GET", "/api/health")
            recorder.keep("stdout after all", server.output)
        recorder.keep("home after all", files_below(server.home))


def _first_detection(recorder: Recorder, server: LiveServer, scans: Path) -> None:
    """As events: models come first, and the worker starts, so that every stage lasts long enough to be seen."""
    body = {"file_path": str(_made(recorder, scans, "axial series"))}
    recorder.events("detection as events", server, "POST", DETECT, body)
    recorder.events("detection as events, again", server, "POST", DETECT, body, brief=True)
    job = server.get("/api/jobs").json()["jobs"][0]["job_id"]
    recorder.ask("jobs: all", server, "GET", "/api/jobs")
    for name, method in {"jobs: one": "GET", "jobs: cancel a finished one": "DELETE"}.items():
        told = recorder.request(server, method, f"/api/jobs/{job}").json()
        told["result"] = [*told["result"]]
        recorder.keep(name, told)


def _made(recorder: Recorder, scans: Path, name: str) -> Path:
    makers = {**images.SCANS, **images.FAST_SCANS, **images.AIR}
    path = makers[name](emptied(scans / name))
    recorder.names |= images.uids(scans / name)
    return path


def _every_scan(recorder: Recorder, server: LiveServer, scans: Path) -> None:
    _twice(recorder, server, "axial series", scans / "axial series")
    _twice(recorder, server, "axial series, fast", scans / "axial series", fast_mode=True)
    for name in images.SCANS:
        if name != "axial series":
            _twice(recorder, server, name, _made(recorder, scans, name))
    for name in images.FAST_SCANS:
        _twice(recorder, server, f"{name}, fast", _made(recorder, scans, name), fast_mode=True)


def _twice(recorder: Recorder, server: LiveServer, name: str, path: Path, **options: object) -> None:
    """The second answer is kept without its vertebrae where they are the first's."""
    body = {"file_path": str(path), **options}
    first = recorder.ask(f"scan: {name}", server, "POST", DETECT, body)
    again = recorder.request(server, "POST", DETECT, body).json()
    if again["vertebrae"] == first["vertebrae"]:
        again["vertebrae"] = "<as the first time>"
    recorder.keep(f"scan: {name}, again", again)


def _every_choice(recorder: Recorder, server: LiveServer, scans: Path) -> None:
    folder = images.two_series(emptied(scans / "two series"))
    for name, options in {
        "the larger series": {},
        "the smaller series": {"series_uid": images.SMALL_SERIES},
        "a series that is not there": {"series_uid": "1.2.3"},
        "total_body": {"model": "total_body"},
        "a device that is not there": {"device": "mps"},
        "no cache": {"use_cache": False},
        "MR's model, which is no network": {"model": "vertebrae_mr"},
        "a key that is not known": {"colour": "red"},
    }.items():
        recorder.detect(f"choice: {name}", server, folder, **options)


def _air(recorder: Recorder, server: LiveServer, scans: Path) -> None:
    for name in images.AIR:
        recorder.detect(name, server, _made(recorder, scans, name))


def _bad_files(recorder: Recorder, server: LiveServer, scans: Path) -> None:
    for make in bad_files.EXPECTED:
        recorder.detect(f"bad file: {make.__name__}", server, make(emptied(scans / make.__name__)))


def _disturbed(recorder: Recorder, server: LiveServer, scans: Path) -> None:
    """While a detection runs another is refused, its models stay; then it is cancelled."""
    path = images.whole_spine(emptied(scans / "whole spine"))
    with server.detection_events(path, use_cache=False) as events:
        job = next(event["job_id"] for event in events if event["status"] == "segmenting")
        recorder.detect("running: another", server, scans / "axial series", use_cache=False)
        recorder.ask("running: delete its model", server, "DELETE", "/api/models/vertebrae")
        recorder.ask("running: health", server, "GET", "/api/health")
        recorder.ask("running: cancel", server, "DELETE", f"/api/jobs/{job}")
        recorder.keep("cancelled: last event", [*events][-1])
    recorder.ask("cancelled: its job", server, "GET", f"/api/jobs/{job}")
