"""A whole detection by the service on an emulated ARM64 processor, beside the same one on this processor.

    python -m benchmarks.arm64.detection [--root FOLDER] [--cpu neoverse-n1] [--no-fast]

The CT is that of a phantom's four lowest vertebrae, the networks are the small trained ones of `phantom/weights`. Both
servers are asked over HTTP. Needs what `python -m benchmarks.arm64` needs; takes QEMU some minutes, without the fast
mode an hour. Writes Markdown, and fails where a vertebra is wrong.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.arm64.root import environment, make_root
from benchmarks.weigh import ROOT
from phantom import demo, drawing, grid, spine
from phantom.files import write_nifti

PHANTOM = spine.describe(3, spine.LEVELS[-4:])

SPACING_MM = (3.0, 3.0, 3.0)

SETTINGS = {"OPENSCANS_PRECISION": "float32", "OPENSCANS_HANG_S": "14400"}
"""As ARM64 computes it; and what takes QEMU an hour is not taken for hung."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What the service answered, and what its health then told of the networks that ran."""

    vertebrae: Sequence[Mapping[str, Any]]
    engine: Sequence[Mapping[str, Any]]
    seconds: float


def detect(image: Path, home: Path, *, fast: bool, python: str, env: Mapping[str, str]) -> Found:
    """Start the service, give it the weights, and ask it. Raises DemonstrationFailed."""
    with demo.server(home, python=python, env={**env, **SETTINGS}) as client:
        client.timeout = None
        for task in ("total_body", "vertebrae"):
            demo.answer(client.post(f"/api/models/import/{task}", json={"file_path": str(demo.WEIGHTS)}))
        body = {"file_path": str(image), "fast_mode": fast}
        found = demo.answer(client.post("/api/detect-vertebrae", json=body))
        engine = demo.answer(client.get("/api/health"))["engine"]
    return Found(found["vertebrae"], engine, found["processing_time_ms"] / 1000)


def engine_rows(name: str, found: Found) -> list[str]:
    return [
        f"| {name} | {ran['network'][:10]} | {ran['formulation']} | "
        f"{', '.join(f'{count} × {kernel}' for kernel, count in sorted(ran['kernels'].items()))} |"
        for ran in found.engine
    ]


def farthest_mm(one: Found, other: Found) -> float:
    """The largest distance between the centres of the vertebrae that both found."""
    here, there = centers_mm(one), centers_mm(other)
    both = here.keys() & there.keys()
    return max((float(np.linalg.norm(here[label] - there[label])) for label in both), default=0.0)


def centers_mm(found: Found) -> dict[str, NDArray[np.float64]]:
    return {vertebra["label"]: np.array([*vertebra["center_mm"].values()]) for vertebra in found.vertebrae}


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=ROOT / "build" / "arm64", help="the ARM64 root (default: %(default)s)"
    )
    parser.add_argument("--cpu", default="neoverse-n1", help="as QEMU names it (default: %(default)s)")
    parser.add_argument("--fast", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    python = make_root(arguments.root.resolve())
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "ct.nii.gz"
        shape, affine = grid.axial(PHANTOM, SPACING_MM)
        write_nifti(image, drawing.render(PHANTOM, shape, affine, seed=0)[0], affine)
        here = detect(image, Path(folder) / "here", fast=arguments.fast, python=sys.executable, env=os.environ)
        log.info("Here: %d vertebrae in %.1f s.", len(here.vertebrae), here.seconds)
        env = environment(arguments.cpu)
        there = detect(image, Path(folder) / "there", fast=arguments.fast, python=str(python), env=env)
    table, right = demo.table(there.vertebrae, drawing.truth(PHANTOM))
    lines = ["| | network | formulation | kernels |", "|---|---|---|---|"]
    lines += [*engine_rows("this processor", here), *engine_rows(f"{arguments.cpu}, emulated", there)]
    lines += ["", *table, "", f"Farthest from the centre found here: {farthest_mm(here, there):.3f} mm."]
    lines += [f"QEMU took {there.seconds:.0f} s; that says nothing of an ARM64 processor."]
    for line in lines:
        log.info("%s", line)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
