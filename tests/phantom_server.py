"""The real server with the phantom's small trained networks installed, and small scans of the phantom to send."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phantom import drawing, grid, spine
from phantom.demo import WEIGHTS
from tests.live_server import MAIN, LiveServer, live_server

TASKS = ("total_body", "vertebrae")

LUMBAR = spine.describe(3, spine.LEVELS[-4:])


@contextmanager
def phantom_server(
    home: Path, env: Mapping[str, str] | None = None, *, program: Sequence[str] = MAIN
) -> Iterator[LiveServer]:
    """A server that never looks outwards, for the length of a block."""
    with live_server(home, {"OPENSCANS_OFFLINE": "1", **(env or {})}, program=program) as server:
        for task in TASKS:
            answer = server.post(f"/api/models/import/{task}", {"file_path": str(WEIGHTS)})
            assert answer.status_code == 200, answer.text
        yield server


def lumbar_scan(seed: int = 0, spacing_mm: float = 3.0) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Voxels (z, y, x) and affine of a scan of four vertebrae."""
    shape, affine = grid.axial(LUMBAR, (spacing_mm, spacing_mm, spacing_mm))
    return drawing.render(LUMBAR, shape, affine, seed=seed)[0], affine
