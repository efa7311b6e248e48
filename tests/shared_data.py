"""Where real CT, MR and DICOM with reference segmentations lie; not part of the project, and only read.

Tests that want them are skipped, visibly, where they are not.
"""

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

SHARED_DATA = Path(os.environ.get("OPENSCANS_TEST_DATA") or BESIDE)
"""The folder that OPENSCANS_TEST_DATA names; without it ``shared/data`` beside the checkout."""

NOT_HERE = f"the real images are not here; they would lie in {SHARED_DATA} (OPENSCANS_TEST_DATA)"
