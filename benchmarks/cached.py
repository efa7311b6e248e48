"""How soon an answer that is kept comes: a series of 600 slices over HTTP, its fingerprint included.

python -m benchmarks.cached [--slices 600]
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from phantom import drawing, grid, spine
from phantom.demo import WEIGHTS, server
from phantom.files import write_dicom_series

COLUMN_MM, ROW_MM = 3.0, 3.0
REQUESTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=600)
    slices = parser.parse_args().slices
    with tempfile.TemporaryDirectory() as name:
        series = Path(name, "series")
        write_series(series, slices)
        with server(Path(name, "home")) as client:
            client.post("/api/models/import/total_body", json={"file_path": str(WEIGHTS)}).raise_for_status()
            first_ms = answer_ms(client, series, cached=False)
            later_ms = sorted(answer_ms(client, series, cached=True) for _ in range(REQUESTS))
    sys.stdout.write(
        f"{slices} slices: found in {first_ms:.0f} ms; kept answer in {statistics.median(later_ms):.1f} ms "
        f"(median of {REQUESTS}), {later_ms[0]:.1f} to {later_ms[-1]:.1f} ms\n"
    )


def write_series(folder: Path, slices: int) -> None:
    """A phantom's whole spine in so many files. How wide they are changes nothing: only their beginnings are read."""
    phantom = spine.describe(7)
    spacing_mm = (COLUMN_MM, ROW_MM, (phantom.top_mm - phantom.bottom_mm) / slices)
    shape, affine = grid.axial(phantom, spacing_mm)
    write_dicom_series(folder, drawing.render(phantom, shape, affine, seed=12)[0], affine)


def answer_ms(client: httpx.Client, series: Path, *, cached: bool) -> float:
    since_s = time.perf_counter()
    answer = client.post("/api/detect-vertebrae", json={"file_path": str(series), "model": "total_body"})
    took_s = time.perf_counter() - since_s
    answer.raise_for_status()
    if answer.json()["cached"] != cached:
        raise SystemExit(f"The answer was {'' if answer.json()['cached'] else 'not '}a kept one.")
    return took_s * 1000


if __name__ == "__main__":
    main()
