"""The demonstration: a synthetic CT goes through the real server by HTTP; what it finds is printed beside the truth.

    python -m phantom.demo [--folder demo-output] [--seed 7]

The server runs the small networks of `phantom/weights`, which know synthetic CTs only.
"""

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from phantom import drawing, grid, picture, spine
from phantom.files import write_dicom_series

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = Path(__file__).resolve().parent / "weights"

SPACING_MM = (1.2, 1.2, 1.5)
CLOSE_ENOUGH_MM = 2.0
"""A centre farther from the truth makes the demonstration fail."""

START_S = 60.0
DETECTION_S = 900.0

log = logging.getLogger(__name__)


class DemonstrationFailed(Exception):
    """The server did not do what the demonstration shows."""


@contextmanager
def server(home: Path, *, python: str = sys.executable, env: Mapping[str, str] = os.environ) -> Iterator[httpx.Client]:
    """The real server on a free port, with ``home`` as its OPENSCANS_HOME, for as long as the block lasts."""
    env = {**env, "OPENSCANS_PORT": "0", "OPENSCANS_HOME": str(home), "OPENSCANS_OFFLINE": "1"}
    # Of its networks nobody knows a digest.
    env = {**env, "OPENSCANS_STRICT_DIGESTS": "0", "OPENSCANS_DIGESTS": ""}
    # The executable is the server itself.
    command = [python] if getattr(sys, "frozen", False) else [python, str(ROOT / "main.py")]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("LISTENING "):
                raise DemonstrationFailed("The server did not start.")
            with httpx.Client(base_url=line.split()[1], timeout=DETECTION_S, trust_env=False) as client:
                yield client
        finally:
            process.terminate()


def answer(response: httpx.Response) -> dict[str, Any]:
    """The JSON of a good answer; the sentence of a bad one as an error."""
    content: dict[str, Any] = response.json()
    if response.is_error:
        raise DemonstrationFailed(f"{content['error']} {content['hint']}")
    return content


def table(found: Sequence[Mapping[str, Any]], truth: Mapping[str, drawing.TrueVertebra]) -> tuple[list[str], bool]:
    """Lines that show what was ``found`` beside the ``truth``, and whether all of it is right."""
    lines = ["label  confidence   centre found (LPS, mm)     centre in truth (LPS, mm)   distance"]
    by_label = {vertebra["label"]: vertebra for vertebra in found}
    right = set(by_label) == set(truth)
    for label in (*truth, *(label for label in by_label if label not in truth)):
        if label not in by_label or label not in truth:
            lines.append(f"{label:5}  {'not found' if label in truth else 'not in the image'}")
            continue
        center = [by_label[label]["center_mm"][axis] for axis in "xyz"]
        distance_mm = float(np.linalg.norm(np.subtract(center, truth[label].center_mm)))
        right = right and distance_mm <= CLOSE_ENOUGH_MM
        lines.append(
            f"{label:5}  {by_label[label]['confidence']:10.3f}   {_position(center)}   "
            f"{_position(truth[label].center_mm)}   {distance_mm:5.2f} mm"
        )
    return lines, right


def _position(center: Sequence[float]) -> str:
    return " ".join(f"{value:8.2f}" for value in center)


def demonstrate(folder: Path, seed: int) -> bool:
    """Run it and write ``folder``/vertebrae.png; True where every vertebra is right."""
    started_s = time.monotonic()
    phantom = spine.describe(seed)
    shape, affine = grid.axial(phantom, SPACING_MM)
    log.info("Drawing a synthetic CT of %d slices of %d × %d pixels ...", shape[0], shape[2], shape[1])
    voxels, _ = drawing.render(phantom, shape, affine, seed=seed)
    first, *_ = write_dicom_series(folder / "series", voxels, affine)
    truth = drawing.truth(phantom)
    with server(folder / "home") as client:
        for task in ("total_body", "vertebrae"):
            answer(client.post(f"/api/models/import/{task}", json={"file_path": str(WEIGHTS)}))
        log.info('POST %s/api/detect-vertebrae {"file_path": "%s"}', str(client.base_url).rstrip("/"), first)
        result = answer(client.post("/api/detect-vertebrae", json={"file_path": str(first)}))
    lines, right = table(result["vertebrae"], truth)
    sys.stdout.write("\n".join(lines) + "\n")
    _save_picture(folder / "vertebrae.png", voxels, affine, result["vertebrae"], truth)
    log.info(
        "%d vertebrae in %.1f s on %s, the whole demonstration took %.0f s. Picture: %s",
        len(result["vertebrae"]),
        result["processing_time_ms"] / 1000,
        result["device"],
        time.monotonic() - started_s,
        folder / "vertebrae.png",
    )
    return right


def _save_picture(
    path: Path,
    voxels: drawing.Voxels,
    affine: grid.Affine,
    found: Sequence[Mapping[str, Any]],
    truth: Mapping[str, drawing.TrueVertebra],
) -> None:
    to_voxels = np.linalg.inv(affine)
    picture.save(
        path,
        picture.View(voxels, SPACING_MM),
        {vertebra["label"]: [vertebra["center"][axis] for axis in "xyz"] for vertebra in found},
        {label: (to_voxels @ (*true.center_mm, 1.0))[:3].tolist() for label, true in truth.items()},
    )


def main(words: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo-output"))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args(words)
    try:
        right = demonstrate(arguments.folder.resolve(), arguments.seed)
    except (DemonstrationFailed, httpx.HTTPError) as error:
        log.error("The demonstration failed: %s", error)
        return 1
    if not right:
        log.error("Not every vertebra has the right label within %.0f mm of the truth.", CLOSE_ENOUGH_MM)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
