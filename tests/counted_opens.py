"""Does one thing with an image and says how often each file was opened, and how many headers were parsed.

`python -m tests.counted_opens ACT PATH SERIES_UID RESULTS`. A process of its own, because an audit hook stays for good.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference import Pipeline
from openscans import volumes
from openscans.types import DetectionTask, InferenceOptions
from openscans.volumes import headers
from tests import small_networks
from tests.test_inference import Onlookers, model


def read(path: Path, series_uid: str | None, results: Path) -> None:
    volumes.open(path, series_uid=series_uid).read()


def detect(path: Path, series_uid: str | None, results: Path) -> None:
    """As a request without a task is answered: which modality, then the vertebrae."""
    pipeline = Pipeline(InferenceOptions(1, "float32", results / "compiled"), Onlookers())
    segmenter = model(results, small_networks.MR)
    task = DetectionTask(path, "vertebrae", segmenter, None, series_uid=series_uid, device="cpu")
    assert pipeline.open(path, series_uid, _ignore) == "CT"
    pipeline.detect(task, _ignore)


ACTS: dict[str, Callable[[Path, str | None, Path], None]] = {"read": read, "detect": detect}


def _ignore(*_progress: object) -> None: ...


def main() -> None:
    act, path, series_uid, results = sys.argv[1:]
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    opened: Counter[str] = Counter()
    parsed = 0
    real = headers.elements_of

    def count_opens(event: str, arguments: tuple[Any, ...]) -> None:
        # An opener tells of itself too, without a mode.
        if event != "open" or arguments[1] is None or not isinstance(arguments[0], str):
            return
        if Path(arguments[0]).parent == folder:
            opened[Path(arguments[0]).name] += 1

    def elements_of(*arguments: Any) -> Any:
        nonlocal parsed
        parsed += 1
        return real(*arguments)

    sys.addaudithook(count_opens)
    headers.elements_of = elements_of
    ACTS[act](Path(path), series_uid or None, Path(results))
    sys.stdout.write(json.dumps({"opened": opened, "parsed": parsed}))


if __name__ == "__main__":
    main()
