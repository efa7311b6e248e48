"""The executable, where one was built: in dist/, or where OPENSCANS_EXECUTABLE says."""

import os
from pathlib import Path

import pytest

from tests.live_server import ROOT
from version import version

NAME = f"openscans-backend-{version()}"
SUFFIX = ".exe" if os.name == "nt" else ""
BUILT = ROOT / "dist" / NAME / f"{NAME}{SUFFIX}"


def built() -> Path:
    """Its path; the test is skipped where there is none."""
    path = Path(os.environ.get("OPENSCANS_EXECUTABLE") or BUILT).resolve()
    if not path.is_file():
        pytest.skip("there is no executable: ./setup.sh build makes one")
    return path
