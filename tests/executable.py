"""The executable, where one was built: in dist/; or where OPENSCANS_EXECUTABLE says, and then it must be there."""

import os
from pathlib import Path

import pytest

from openscans.version import version
from tests.live_server import ROOT

NAME = f"openscans-backend-{version()}"
SUFFIX = ".exe" if os.name == "nt" else ""
BUILT = ROOT / "dist" / NAME / f"{NAME}{SUFFIX}"


def built() -> Path:
    """Its path; the test is skipped where there is none."""
    named = os.environ.get("OPENSCANS_EXECUTABLE")
    path = Path(named or BUILT).resolve()
    if named:
        assert path.is_file(), f"There is no executable at {path}, which OPENSCANS_EXECUTABLE names."
    elif not path.is_file():
        pytest.skip("there is no executable: ./setup.sh build makes one")
    return path
