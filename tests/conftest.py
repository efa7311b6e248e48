"""What several test modules share: the folder of real images, where it is, and a home with the phantom's weights."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT, MR and DICOM beside the project; tests that want it are skipped where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real images are not here")
    return SHARED_DATA
